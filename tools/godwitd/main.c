/* SPDX-License-Identifier: Apache-2.0 */
/* The node daemon's process: arguments, signals, readiness. Everything else is the library's. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "build_config.h"
#include "shell/api.h"
#include "shell/daemon.h"
#include "util/cleanup.h"

static const char usage[] =
    "Usage: godwitd [--config FILE] [--log-level LEVEL]\n"
    "\n"
    "The node daemon of Godwit: looks after the VMs of this node and moves them.\n"
    "\n"
    "  --config FILE      configuration; default " GW_CONFIG_DEFAULT_FILE "\n"
    "  --log-level LEVEL  error, warning, info or debug; overrides the configuration\n"
    "  --check            read the configuration, say whether it is good, and exit\n"
    "  --print-routes     list the routes of the HTTP API and exit\n"
    "  --version          print the version and exit\n"
    "  --help             this text\n"
    "\n"
    "It runs in the foreground and logs to stderr, or to the journal under systemd. On\n"
    "SIGTERM it cancels migrations, stops and leaves the VMs running; started again, it\n"
    "finds them.\n"
    "A first node:  godwit node init --name n1 --address 10.0.0.1\n";

struct options {
    const char *config;
    int log_level; /* -1: the configuration's */
    bool check;
};

/* 0: go on; otherwise the process ends with *statusp. */
static int read_options(int argc, char **argv, struct options *o, int *statusp)
{
    static const struct option known[] = {{"config", required_argument, NULL, 'c'},
                                          {"log-level", required_argument, NULL, 'l'},
                                          {"check", no_argument, NULL, 'k'},
                                          {"print-routes", no_argument, NULL, 'r'},
                                          {"version", no_argument, NULL, 'V'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    int c;

    *statusp = 0;
    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (c) {
        case 'c': o->config = optarg; break;
        case 'k': o->check = true; break;
        case 'l':
            o->log_level = gw_log_level_from_name(optarg);
            if (o->log_level >= 0)
                break;
            fprintf(stderr, "godwitd: '%s' is no log level: error, warning, info, debug\n", optarg);
            *statusp = 2;
            return 1;
        case 'r': gw_api_print_routes(stdout); return 1;
        case 'V': puts("godwitd " GW_VERSION); return 1;
        case 'h': fputs(usage, stdout); return 1;
        default:
            fputs("Try 'godwitd --help'.\n", stderr);
            *statusp = 2;
            return 1;
        }
    }
    if (optind == argc)
        return 0;
    fprintf(stderr, "godwitd: unexpected argument '%s'\nTry 'godwitd --help'.\n", argv[optind]);
    *statusp = 2;
    return 1;
}

static void say_error(const struct gw_error *error)
{
    fprintf(stderr, "godwitd: %s\n", error->msg);
    if (error->hint[0])
        fprintf(stderr, "  %s\n", error->hint);
}

/* sd_notify(3)'s protocol, which needs one datagram: systemd and the lab wait for it. */
static void say_ready(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    gw_autoclose int fd = -1;

    if (!path || strlen(path) >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, path, strlen(path));
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        (void)!sendto(fd, "READY=1", strlen("READY=1"), MSG_NOSIGNAL, (struct sockaddr *)&address,
                      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
}

static void stop(evutil_socket_t sig, short what, void *arg)
{
    (void)sig;
    (void)what;
    gw_daemon_stop(arg);
}

static int run(struct gw_config *config, const struct gw_log *log)
{
    struct event_base *base = event_base_new();
    struct gw_daemon daemon = {.base = base};
    struct event *on_term = evsignal_new(base, SIGTERM, stop, &daemon);
    struct event *on_int = evsignal_new(base, SIGINT, stop, &daemon);
    struct gw_error error;
    int status = 1;

    signal(SIGPIPE, SIG_IGN);
    event_add(on_term, NULL);
    event_add(on_int, NULL);
    if (gw_daemon_start(&daemon, base, config, log, &error) < 0) {
        say_error(&error);
        gw_config_free(config);
    } else {
        say_ready();
        status = event_base_dispatch(base) < 0;
        gw_log(log, GW_LOG_INFO, "godwitd", "stopping; the VMs go on");
        gw_daemon_fini(&daemon);
    }
    event_free(on_term);
    event_free(on_int);
    event_base_free(base);
    libevent_global_shutdown();
    return status;
}

int main(int argc, char **argv)
{
    struct options options = {.log_level = -1};
    struct gw_config *config;
    struct gw_error error;
    struct gw_log log;
    int status;

    if (read_options(argc, argv, &options, &status) != 0)
        return status;
    if (gw_config_load(options.config, &config, &error) < 0) {
        say_error(&error);
        return 2;
    }
    if (options.check) {
        puts("the configuration is good");
        gw_config_free(config);
        return 0;
    }
    log.level = options.log_level >= 0 ? (enum gw_log_level)options.log_level : config->log_level;
    log.to_journal = gw_log_journal_wanted();
    return run(config, &log);
}
