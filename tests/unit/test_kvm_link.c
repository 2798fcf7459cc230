/* test_kvm_link.c - what the kvm driver lends to one VM after the other bears nothing from one to the
 * next. Needs no KVM. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "hypervisor/kvm/channel_memory.h"
#include "hypervisor/kvm/driver.h"

enum { SECOND = 1000000 };
static struct kvm_driver drv;
static struct kvm_vm vm = {.freed = true}; /* so that nothing is made of what comes */

static int setup(void **state)
{
    struct un_error err = UN_ERROR_INIT;
    drv = (struct kvm_driver){0};
    if (un_loop_new_virtual(SECOND, &drv.loop, &err) < 0) {
        return -1;
    }
    kvm_links_init(&drv);
    return 0;
}

static int teardown(void **state)
{
    kvm_links_free(&drv);
    un_loop_free(drv.loop);
    return 0;
}

static struct kvm_link *take(void)
{
    struct un_error err = UN_ERROR_INIT;
    struct kvm_link *link;
    if (kvm_link_take(&drv, &vm, &link, &err) < 0) {
        fail_msg("%s", err.text);
    }
    return link;
}

static off_t used_blocks(const struct kvm_link *link)
{
    struct stat st;
    assert_int_equal(fstat(link->channel_fd, &st), 0);
    return st.st_blocks;
}

/* Neither end has anything to read. */
static void assert_silent(const struct kvm_link *link)
{
    char byte;
    assert_int_equal(recv(link->sock, &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(recv(link->peer, &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
}

static void one_that_was_left_in_order_is_lent_again(void **state)
{
    struct kvm_link *first = take(), *second = take();
    assert_ptr_not_equal(first, second);
    assert_int_not_equal(first->channel_fd, second->channel_fd);
    first->base[0] = 1;
    kvm_link_put(&drv, second, true);
    kvm_link_put(&drv, first, false);
    assert_ptr_equal(take(), first);
    assert_ptr_equal(first->vm, &vm);
    kvm_link_put(&drv, first, true);
}

static void unread_reports_do_not_reach_the_next_vm(void **state)
{
    struct kvm_link *link = take();
    assert_int_equal(send(link->peer, "x", 1, 0), 1);
    assert_false(kvm_link_unread(link));
    kvm_link_put(&drv, link, true);
    assert_true(un_list_empty(&drv.links));
    link = take();
    assert_silent(link);
    kvm_link_put(&drv, link, true);
}

static void unread_orders_do_not_reach_the_next_monitor(void **state)
{
    struct kvm_link *link = take();
    assert_false(kvm_link_unread(link));
    assert_int_equal(send(link->sock, "x", 1, 0), 1);
    assert_true(kvm_link_unread(link));
    kvm_link_put(&drv, link, true);
    assert_true(un_list_empty(&drv.links));
    link = take();
    assert_silent(link);
    kvm_link_put(&drv, link, true);
}

static void much_memory_is_not_kept(void **state)
{
    struct kvm_link *link = take();
    memset(link->base, 1, VMM_CHANNEL_SIZE);
    kvm_link_put(&drv, link, false);
    link = take();
    assert_int_equal(used_blocks(link), 0);
    kvm_link_put(&drv, link, true);
}

static void those_not_used_for_long_are_freed(void **state)
{
    struct kvm_link *first = take(), *second = take();
    kvm_link_put(&drv, first, true);
    un_loop_advance(drv.loop, 8 * SECOND);
    kvm_link_put(&drv, second, true);
    un_loop_advance(drv.loop, 8 * SECOND);
    assert_ptr_equal(un_list_first(&drv.links, struct kvm_link, node), second);
    assert_ptr_equal(drv.links.prev, &second->node);
    un_loop_advance(drv.loop, 8 * SECOND);
    assert_true(un_list_empty(&drv.links));
}

static void cleared_memory_is_zero_whatever_was_written(void **state)
{
    static const size_t writes[] = {
        1, 4096, 3 * 4096 + 7, CHANNEL_WIPE_MAX, CHANNEL_WIPE_MAX + 1, VMM_CHANNEL_SIZE};
    struct kvm_link *link = take();
    for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++) {
        memset(link->base + VMM_CHANNEL_SIZE - writes[i], 0xee, writes[i]);
        link->base[0] = 1;
        assert_int_equal(channel_memory_clear(link->channel_fd, link->base), 0);
        assert_true(link->base[0] == 0 &&
                    memcmp(link->base, link->base + 1, VMM_CHANNEL_SIZE - 1) == 0);
    }
    kvm_link_put(&drv, link, false);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_that_was_left_in_order_is_lent_again),
        TEST(unread_reports_do_not_reach_the_next_vm),
        TEST(unread_orders_do_not_reach_the_next_monitor),
        TEST(much_memory_is_not_kept),
        TEST(those_not_used_for_long_are_freed),
        TEST(cleared_memory_is_zero_whatever_was_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
