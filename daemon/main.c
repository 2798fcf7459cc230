/* main.c - `unid`: reads the settings, opens the daemon, runs it. */
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "common/log.h"
#include "daemon/config.h"
#include "daemon/daemon.h"
#include <config.h>

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

static void prepare_process(void)
{
    umask(077);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN); /* outlives the terminal it was started from; nothing to reload */
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    /* A few threads and many short-lived buffers: arenas of their own for each thread would keep
     * several times the memory that is in use. */
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_TRIM_THRESHOLD, 256 * 1024);
}

static int run(const struct config *config)
{
    struct un_error err = UN_ERROR_INIT;
    struct daemon *daemon = NULL;
    un_log_setup((enum un_log_level)un_log_level_parse(config->log_level),
                 (enum un_log_format)un_log_format_parse(config->log_format));
    if (daemon_open(config, &daemon, &err) < 0) {
        un_log(UN_LOG_ERROR, "cannot start", "error", err.text);
        return EXIT_FAILED;
    }
    daemon_run(daemon);
    daemon_close(daemon);
    un_log(UN_LOG_INFO, "stopped");
    return 0;
}

int main(int argc, char **argv)
{
    struct config config;
    struct un_error err = UN_ERROR_INIT;
    enum config_action action;
    int status = 0;
    if (config_load(argc, argv, &config, &action, &err) < 0) {
        fprintf(stderr, "unid: %s\n", err.text);
        status = EXIT_USAGE;
    } else if (action == CONFIG_SHOW_HELP) {
        config_print_help();
    } else if (action == CONFIG_SHOW_VERSION) {
        printf("unid %s\n", PACKAGE_VERSION);
    } else if (config.check_only) {
        printf("the settings are valid\n");
    } else {
        prepare_process();
        status = run(&config);
    }
    config_done(&config);
    return status;
}
