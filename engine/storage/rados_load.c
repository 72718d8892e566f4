/* SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>
#include <unistd.h>

#include "build_config.h"
#include "storage/rados_module.h"
#include "util/cleanup.h"

/* Once loaded it stays: librados leaves threads behind. */
static const struct gw_rados_module *module;
static mtx_t loading;
static once_flag once = ONCE_FLAG_INIT;

static void init(void)
{
    mtx_init(&loading, mtx_plain);
}

/* The directory of this program, which whoever may write there owns anyway. */
static bool beside_program(char *out, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", out, size - 1);
    char *slash;

    out[n > 0 ? n : 0] = '\0';
    slash = strrchr(out, '/');
    if (!slash)
        return false;
    *slash = '\0';
    return true;
}

static bool find_in(const char *directory, char *out, size_t size)
{
    return directory && directory[0] == '/' &&
           (size_t)snprintf(out, size, "%s/" GW_RADOS_MODULE_FILE, directory) < size &&
           access(out, R_OK) == 0;
}

static int find(char *out, size_t size, struct gw_error *error)
{
    char beside[PATH_MAX];

    if (find_in(secure_getenv("GODWIT_MODULES"), out, size) ||
        (beside_program(beside, sizeof beside) && find_in(beside, out, size)) ||
        find_in(GW_MODULES_DIR, out, size))
        return 0;
    gw_error_set(error, GW_E_UNSUPPORTED, "this Godwit has no Ceph: %s/%s is not there",
                 GW_MODULES_DIR, GW_RADOS_MODULE_FILE);
    return gw_error_hint(error, GW_HAVE_RBD
                                    ? "install Godwit again, or set GODWIT_MODULES to the "
                                      "directory that has " GW_RADOS_MODULE_FILE
                                    : "it was built without: install librbd-dev and librados-dev "
                                      "and build it again with -Drbd=enabled");
}

static int load(struct gw_error *error)
{
    const struct gw_rados_module *found;
    char path[PATH_MAX];
    void *handle;

    if (find(path, sizeof path, error) < 0)
        return -1;
    handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        gw_error_set(error, GW_E_UNSUPPORTED, "load %s: %.300s", path, dlerror());
        return gw_error_hint(error, "install the packages librbd1 and librados2");
    }
    found = dlsym(handle, GW_RADOS_MODULE_SYMBOL);
    if (!found || strcmp(found->version, GW_VERSION) != 0) {
        gw_error_set(error, GW_E_UNSUPPORTED, "%s is of Godwit %s, this is " GW_VERSION, path,
                     found ? found->version : "(none)");
        dlclose(handle);
        return gw_error_hint(error, "install both from one build");
    }
    module = found;
    return 0;
}

int gw_rados_open(const struct gw_rados_options *options, struct gw_rados **radosp,
                  struct gw_error *error)
{
    int r;

    call_once(&once, init);
    mtx_lock(&loading);
    r = module ? 0 : load(error);
    mtx_unlock(&loading);
    return r < 0 ? r : module->open(options, radosp, error);
}

/* Who has a connection has a module. */
void gw_rados_close(struct gw_rados *rados)
{
    if (rados)
        module->close(rados);
}

int gw_store_rados_open(struct gw_rados *rados, const char *pool, struct gw_store **storep,
                        struct gw_error *error)
{
    return module->store_open(rados, pool, storep, error);
}

int gw_rados_fence(struct gw_rados *rados, struct gw_rados_call *call, const char *address,
                   unsigned seconds)
{
    return gw_rados_address_ok(address) ? module->fence(rados, call, address, seconds) : -EINVAL;
}

int gw_rbd_facts(struct gw_rados *rados, struct gw_rados_call *call, const char *text)
{
    struct gw_rbd_spec spec;

    if (gw_rbd_spec_parse(text, &spec, &call->error) < 0)
        return -EINVAL;
    return module->facts(rados, call, &spec);
}

int gw_rbd_await_locks(struct gw_rados *rados, struct gw_rados_call *call,
                       const struct gw_rbd_lock *locks, size_t n, unsigned limit_ms)
{
    struct gw_rbd_spec specs[GW_RBD_LOCKS_MAX];

    if (n == 0 || n > GW_RBD_LOCKS_MAX)
        return -EINVAL;
    for (size_t i = 0; i < n; i++)
        if (gw_rbd_spec_parse(locks[i].spec, &specs[i], &call->error) < 0)
            return -EINVAL;
    return module->await_locks(rados, call, specs, locks, n, limit_ms);
}
