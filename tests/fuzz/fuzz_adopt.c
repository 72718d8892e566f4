/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command lines of other people's QEMUs: arguments separated by newlines. What is adopted without
 * a refusal must pass as a template, which the destination checks by itself.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/adopt.h"

#define MAX_ARGS 200

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int bridge_of(struct gw_adopt_host *host, const char *ifname, char bridge[IFNAMSIZ])
{
    (void)host;
    snprintf(bridge, IFNAMSIZ, "br0");
    return ifname[0] == 'x' ? -1 : 0;
}

static int tap_of_fd(struct gw_adopt_host *host, int fd, char ifname[IFNAMSIZ])
{
    (void)host;
    snprintf(ifname, IFNAMSIZ, "tap0");
    return fd == 3 ? 0 : -1;
}

static void check(const struct gw_adopt *adopt)
{
    const struct gw_vm_spec *spec = adopt->spec;
    struct gw_vm_spec *back = NULL;
    struct gw_error e;
    json_t *json;

    if (gw_adopt_verdict(adopt, &e) < 0) {
        if (!e.msg[0])
            abort();
        return;
    }
    json = gw_vm_spec_to_json(spec);
    if (!json || gw_vm_spec_from_json(json, &back, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    gw_vm_spec_free(back);
    json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_adopt_host host = {.bridge_of = bridge_of, .tap_of_fd = tap_of_fd, .cwd = "/c,@w"};
    char *text = strndup((const char *)data, size);
    char *rest = text, *argv[MAX_ARGS];
    struct gw_adopt *adopt = NULL;
    struct gw_error e;
    size_t n = 0;

    while (n < MAX_ARGS && (argv[n] = strsep(&rest, "\n")))
        n++;
    if (gw_adopt_check_template(argv, n, 1, &e) < 0 && !e.msg[0])
        abort();
    if (gw_adopt_parse(argv, n, "vm", &host, &adopt, &e) == 0) {
        check(adopt);
        gw_adopt_free(adopt);
    }
    free(text);
    return 0;
}
