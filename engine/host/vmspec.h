/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM is: the contents of a VM file, and what the two nodes of a migration tell each other
 * about the guest. A spec is plain data; argv.h turns one into a QEMU command line, adopt.h makes
 * one from a QEMU that somebody else started.
 *
 * Whatever a spec came from (a YAML file, JSON of a peer, JSON of the journal), it has passed the
 * same validation, so a spec in hand is a valid one:
 *
 *   name          1 to 63 of A-Z a-z 0-9 . _ -, beginning with a letter or digit
 *   memory_bytes  a multiple of 1 MiB, from 16 MiB to 16 TiB
 *   cpus          1 to 512
 *   strings       UTF-8 without control characters, at most 4095 bytes (an element of adopted_argv
 *                 at most 16383)
 *   disks, nics   at most 16 and 8; every disk has exactly one of rbd and file
 *
 * Single-threaded: a spec has one owner.
 */
#ifndef GW_HOST_VMSPEC_H
#define GW_HOST_VMSPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>

#include "godwit/error.h"
#include "util/cleanup.h"

#define GW_VM_MEMORY_MIN_BYTES (16ull << 20)
#define GW_VM_MEMORY_MAX_BYTES (16ull << 40)
#define GW_VM_MAX_CPUS         512u
#define GW_VM_MAX_DISKS        16u
#define GW_VM_MAX_NICS         8u
#define GW_VM_MAX_ARGS         1024u
#define GW_VM_DEFAULT_CPU      "x86-64-v2-AES"
#define GW_VM_DEFAULT_MACHINE  "q35"

enum gw_accel {
    GW_ACCEL_AUTO, /* kvm where it really works, otherwise tcg */
    GW_ACCEL_KVM,
    GW_ACCEL_TCG,
};

/* Not in the order of their age: a spec from before there was a balloon has none. */
enum gw_balloon {
    GW_BALLOON_NONE,
    GW_BALLOON_HINTS, /* a virtio-balloon through which the guest says what it has free */
};

struct gw_vm_disk {
    char *rbd;     /* "pool/image" or "pool/namespace/image"; NULL: file is set */
    char *file;    /* absolute path, the same on both nodes; NULL: rbd is set */
    char *format;  /* "raw" or "qcow2"; an adopted VM's also others, "auto": QEMU looks */
    bool readonly; /* the guest cannot write to it (an adopted VM's CD-ROM, firmware …) */
};

struct gw_vm_nic {
    char *bridge; /* name of the host's bridge, the same on both nodes */
    char *mac;    /* lower case; NULL: gw_vm_spec_resolve() chooses; adopted: QEMU chose */
};

struct gw_vm_boot {
    char *kernel; /* absolute path or NULL: from the first disk */
    char *initrd; /* absolute path or NULL */
    char *append; /* the kernel's command line or NULL */
};

struct gw_vm_console {
    char *log; /* absolute path that the serial console is appended to, or NULL */
};

/* Every string is owned by the spec. Arrays of strings have n_… elements and a NULL after them;
 * they are NULL when there are none. */
struct gw_vm_spec {
    char *name;
    char *uuid; /* lower case; NULL until gw_vm_spec_resolve() */
    uint64_t memory_bytes;
    unsigned cpus;
    char *cpu; /* a QEMU model with properties, or an alias that gw_argv_cpu() knows */
    enum gw_accel accel;
    char *machine; /* QEMU machine type without properties */
    struct gw_vm_boot boot;
    struct gw_vm_disk *disks; /* adopted: what preflight has to find on the other node */
    size_t n_disks;
    struct gw_vm_nic *nics; /* adopted: only those on a tap, in the order of the "@TAPn@" */
    size_t n_nics;
    struct gw_vm_console console;
    enum gw_balloon balloon; /* Godwit's own; one in qemu_args or adopted_argv is not meant */
    char **qemu_args;        /* appended to the command line as they are */
    size_t n_qemu_args;
    char **adopted_argv; /* the template that adopt.h describes; NULL: not an adopted VM */
    size_t n_adopted_argv;
};

/* "auto", "kvm", "tcg". */
const char *gw_accel_name(enum gw_accel accel);

/* The enum gw_accel of that name, or -1. name may be NULL. */
int gw_accel_from_name(const char *name);

/* Whether text may be a VM's name; NULL is no name. */
bool gw_vm_name_valid(const char *text);

/* "none", "free-page-hints". */
const char *gw_balloon_name(enum gw_balloon balloon);

/* The enum gw_balloon of that name, or -1. name may be NULL. */
int gw_balloon_from_name(const char *name);

/*
 * Reads a memory size: a number with K, M, G or T, each also as KiB …, in powers of 1024; a plain
 * number is bytes. Returns 0, or -1 if text is none or does not fit into 64 bits. Knows nothing of
 * the limits above.
 */
int gw_vm_parse_size(const char *text, uint64_t *bytesp);

/*
 * Parses a VM file and fills in the defaults of cpus, cpu, machine, accel, format and balloon. A VM
 * has a balloon unless its file says no, its machine has no PCI, or its qemu_args bring one. text
 * needs no terminating NUL. Messages begin with "FILE:LINE: ". Returns 0 with *specp the caller's,
 * or -1 with *e (GW_E_CONFIG; GW_E_SYSTEM when memory is short) and *specp untouched.
 */
int gw_vm_spec_from_yaml(const char *text, size_t len, const char *file, struct gw_vm_spec **specp,
                         struct gw_error *e);

/* The spec as a new JSON object that gw_vm_spec_from_json() takes back, members that are NULL or
 * empty left out; NULL when memory is short. There is no balloon in it where the VM has none: so a
 * node that knows of no balloons takes such a VM and refuses the others, and what it sends or has
 * left in the journal is read as what it started. */
json_t *gw_vm_spec_to_json(const struct gw_vm_spec *spec);

/*
 * The other way; json is borrowed and may be anything at all. Unknown members are an error: a
 * property that only the other node knows would otherwise get lost. The template of an adopted VM
 * is checked option by option, as in adopt.h. Returns 0 with *specp the caller's, or -1 with *e
 * (GW_E_PROTOCOL, GW_E_SYSTEM) and *specp untouched.
 */
int gw_vm_spec_from_json(const json_t *json, struct gw_vm_spec **specp, struct gw_error *e);

/* NULL is fine. */
void gw_vm_spec_free(struct gw_vm_spec *spec);
GW_DEFINE_AUTO(vm_spec)

/*
 * Fills in what must stay the same for the life of the VM: a random uuid where there is none, and
 * for each NIC without a MAC address one of 52:54:00:xx:xx:xx derived from uuid and position (an
 * adopted VM keeps what QEMU gave it). Repeating it changes nothing. Returns 0 or -1 with *e.
 */
int gw_vm_spec_resolve(struct gw_vm_spec *spec, struct gw_error *e);

/*
 * Pins the machine type, as in "q35" to "pc-q35-10.0": an alias means different machines to
 * different QEMUs. Works for adopted VMs as well. Returns 0, or -1 with *e and spec untouched.
 */
int gw_vm_spec_set_machine(struct gw_vm_spec *spec, const char *machine, struct gw_error *e);

#endif
