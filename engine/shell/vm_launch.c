/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>

#include "host/argv.h"
#include "host/prefault.h"
#include "host/tap.h"
#include "shell/daemon.h"
#include "shell/guestaddr.h"
#include "shell/vm_private.h"
#include "util/cleanup.h"
#include "util/tree.h"

/* A launch that waits for the verdict on KVM. */
struct launch {
    struct gw_accel_call accel;
    struct gw_vm *vm;
};

static int make_taps(struct gw_vm *vm, struct gw_error *error)
{
    for (unsigned i = 0; i < vm->spec->n_nics; i++) {
        gw_tap_name(vm->tap_names[i], vm->spec->uuid, i);
        gw_tap_delete(vm->tap_names[i], NULL); /* as with the directory */
        if (gw_tap_create(vm->tap_names[i], vm->spec->nics[i].bridge, error) < 0)
            return -1;
        vm->n_taps = i + 1;
    }
    return 0;
}

static int make_paths(struct gw_vm *vm, struct gw_error *error)
{
    if (asprintf(&vm->rundir, "%s/vm-%s", vm->daemon->config->run_dir, vm->spec->name) < 0 ||
        asprintf(&vm->qmp_path, "%s/qmp", vm->rundir) < 0 ||
        asprintf(&vm->log_path, "%s/qemu.log", vm->rundir) < 0)
        abort();
    /* no VM of the list has this name: what is there was left by a daemon that died early */
    if (gw_remove_tree(vm->rundir) == 0 && mkdir(vm->rundir, 0700) == 0)
        return 0;
    gw_error_set_sys(error, errno, "mkdir %s", vm->rundir);
    free(gw_steal_ptr(&vm->rundir));
    return -1;
}

static int start_qemu(struct gw_vm *vm, struct gw_error *error)
{
    const char *taps[GW_VM_MAX_NICS];
    struct gw_vm_runtime runtime = {
        .qemu = vm->daemon->config->qemu,
        .qmp_path = vm->qmp_path,
        .run_dir = vm->rundir,
        .taps = taps,
        .n_taps = vm->n_taps,
        .incoming = vm->incoming,
        .prefault_threads = vm->prefault ? gw_prefault_threads((unsigned)get_nprocs()) : 0,
        .accel = vm->accel,
        .ceph_conf = vm->daemon->config->ceph_conf,
        .ceph_user = vm->daemon->config->ceph_user,
    };
    gw_autofree char *line = NULL;
    char **argv;
    int result;

    for (unsigned i = 0; i < vm->n_taps; i++)
        taps[i] = vm->tap_names[i];
    if (gw_argv_build(vm->spec, &runtime, &argv, error) < 0)
        return -1;
    line = gw_argv_render(argv);
    gw_log(&vm->daemon->log, GW_LOG_DEBUG, vm->spec->name, "starting %s", line ? line : "");
    result = gw_process_start(argv, vm->log_path, &vm->process, error);
    gw_argv_free(argv);
    if (result < 0)
        gw_error_hint(error, "install QEMU, or set qemu in the daemon's configuration");
    return result;
}

static void launch(struct gw_vm *vm)
{
    struct gw_error error;

    if (make_paths(vm, &error) < 0 || make_taps(vm, &error) < 0 || start_qemu(vm, &error) < 0) {
        gw_vm_finish(vm, &error);
        return;
    }
    gw_vm_save(vm); /* from here on a QEMU could be left behind */
    vm->addresses = gw_guestaddr_open(vm);
    if (gw_vm_watch_process(vm) < 0 || gw_vm_open_qmp(vm, &error) < 0)
        gw_process_signal(&vm->process, SIGKILL);
}

static void accel_known(struct gw_accel_call *call, bool kvm, const char *why)
{
    struct launch *l = gw_container_of(call, struct launch, accel);
    struct gw_vm *vm = l->vm;
    struct gw_error error;

    free(l);
    if (vm->spec->accel == GW_ACCEL_KVM && !kvm) {
        gw_error_set(&error, GW_E_UNSUPPORTED, "%s needs KVM, which does not work here: %s",
                     vm->spec->name, why);
        gw_error_hint(&error, "say `accel: tcg` in the VM file to run it slowly, or `auto`");
        gw_vm_finish(vm, &error);
        return;
    }
    vm->accel = kvm ? GW_ACCEL_KVM : GW_ACCEL_TCG;
    vm->spec->accel = vm->accel; /* from now on it is what the guest was started with */
    launch(vm);
}

void gw_vm_launch(struct gw_daemon *daemon, struct gw_vm_spec *spec, unsigned flags,
                  struct gw_vm_call *call)
{
    struct launch *l = calloc(1, sizeof *l);
    struct gw_error error;
    struct gw_vm *vm;

    if (!l)
        abort();
    if (gw_vm_check_new(daemon, spec, &error) < 0) {
        gw_vm_spec_free(spec);
        free(l);
        call->done(call, NULL, &error);
        return;
    }
    vm = gw_vm_new(daemon, spec);
    vm->incoming = (flags & GW_VM_LAUNCH_INCOMING) != 0;
    vm->prefault = (flags & GW_VM_LAUNCH_PREFAULT) != 0;
    vm->launching = true;
    vm->launch_call = call;
    l->vm = vm;
    l->accel.done = accel_known;
    if (spec->accel == GW_ACCEL_TCG) {
        vm->accel = GW_ACCEL_TCG;
        free(l);
        launch(vm);
    } else {
        gw_daemon_ask_kvm(daemon, &l->accel);
    }
}
