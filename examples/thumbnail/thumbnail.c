/* thumbnail - makes a JPEG picture small.
 *
 *     thumbnail SIZE < picture.jpg > small.jpg
 *
 * The picture is decoded at the least of the scales k/8 at which its longer side still has SIZE pixels
 * (or at 8/8), which costs less than decoding it whole, and encoded again with quality 80. libjpeg's own
 * errors end the program with status 1 and a line on standard error.
 */
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

static void choose_scale(struct jpeg_decompress_struct *in, unsigned size)
{
    unsigned longer = in->image_width > in->image_height ? in->image_width : in->image_height;
    in->scale_denom = 8;
    for (in->scale_num = 1; in->scale_num < 8; in->scale_num++) {
        if ((unsigned long)longer * in->scale_num / 8 >= size) {
            break;
        }
    }
}

int main(int argc, char **argv)
{
    struct jpeg_error_mgr errors;
    struct jpeg_decompress_struct in = {.err = jpeg_std_error(&errors)};
    struct jpeg_compress_struct out = {.err = &errors};
    unsigned size = argc == 2 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    if (size == 0) {
        fputs("usage: thumbnail SIZE < picture.jpg\n", stderr);
        return 1;
    }
    jpeg_create_decompress(&in);
    jpeg_create_compress(&out);
    jpeg_stdio_src(&in, stdin);
    jpeg_stdio_dest(&out, stdout);
    jpeg_read_header(&in, TRUE);
    choose_scale(&in, size);
    in.out_color_space = in.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_start_decompress(&in);
    out.image_width = in.output_width;
    out.image_height = in.output_height;
    out.input_components = in.output_components;
    out.in_color_space = in.out_color_space;
    jpeg_set_defaults(&out);
    jpeg_set_quality(&out, 80, TRUE);
    jpeg_start_compress(&out, TRUE);
    JSAMPARRAY row = in.mem->alloc_sarray((j_common_ptr)&in, JPOOL_IMAGE,
                                          in.output_width * (unsigned)in.output_components, 1);
    while (in.output_scanline < in.output_height) {
        jpeg_read_scanlines(&in, row, 1);
        jpeg_write_scanlines(&out, row, 1);
    }
    jpeg_finish_compress(&out);
    jpeg_finish_decompress(&in);
    return 0;
}
