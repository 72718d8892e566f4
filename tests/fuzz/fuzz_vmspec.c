/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VM files, and the specs of peers. A text that begins with '{' is tried as JSON too. Whatever is
 * accepted must survive the way to the peer unchanged, and make a command line.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "host/argv.h"
#include "host/vmspec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void build(const struct gw_vm_spec *spec)
{
    static const char *const taps[GW_VM_MAX_NICS] = {"t", "t", "t", "t", "t", "t", "t", "t"};
    const struct gw_vm_runtime runtime = {.qemu = "qemu",
                                          .qmp_path = "/q",
                                          .run_dir = "/r",
                                          .taps = taps,
                                          .n_taps = spec->n_nics,
                                          .accel = spec->accel == GW_ACCEL_KVM ? GW_ACCEL_KVM
                                                                               : GW_ACCEL_TCG};
    struct gw_error e;
    char **argv;

    if (gw_argv_build(spec, &runtime, &argv, &e) == 0) {
        free(gw_argv_render(argv));
        gw_argv_free(argv);
    } else if (e.code != GW_E_UNSUPPORTED) {
        abort();
    }
}

static void must_survive(struct gw_vm_spec *spec)
{
    struct gw_vm_spec *back = NULL;
    struct gw_error e;
    json_t *one, *two;

    if (gw_vm_spec_resolve(spec, &e) < 0)
        abort();
    one = gw_vm_spec_to_json(spec);
    if (!one || gw_vm_spec_from_json(one, &back, &e) < 0)
        abort();
    two = gw_vm_spec_to_json(back);
    if (!json_equal(one, two))
        abort();
    build(back);
    json_decref(one);
    json_decref(two);
    gw_vm_spec_free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_vm_spec *spec = NULL;
    struct gw_error e;
    json_t *json;

    if (gw_vm_spec_from_yaml((const char *)data, size, "fuzz", &spec, &e) == 0) {
        must_survive(spec);
        gw_vm_spec_free(spec);
    } else if (e.code != GW_E_CONFIG || !e.msg[0]) {
        abort();
    }
    json = size && data[0] == '{' ? json_loadb((const char *)data, size, 0, NULL) : NULL;
    if (json && gw_vm_spec_from_json(json, &spec, &e) == 0) {
        must_survive(spec);
        gw_vm_spec_free(spec);
    }
    json_decref(json);
    return 0;
}
