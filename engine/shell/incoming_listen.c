/* SPDX-License-Identifier: Apache-2.0 */
/* ARM and LISTEN: QEMU gets its settings, and waits for the guest. */
#include <stdio.h>
#include <string.h>

#include "shell/carrier_offer.h"
#include "shell/daemon.h"
#include "shell/incoming_private.h"
#include "shell/lockwait.h"

#define COMMAND_TIMEOUT_NS UINT64_C(10000000000)

/* ARM */

static void armed(struct gw_qmp_batch *batch, json_t *replies, const struct gw_error *error)
{
    (void)replies;
    done(gw_container_of(batch, struct incoming, batch), GW_OP_ARM, error);
}

void gw_incoming_arm(struct incoming *in)
{
    struct gw_native_offer theirs = gw_native_offer_of(in->peer_facts);
    struct gw_native_offer mine = gw_native_offer_of(in->facts);
    struct gw_native_terms terms;
    struct gw_error error;

    if (gw_native_negotiate(&theirs, &mine, &in->base.wishes, false, &terms, &error) < 0) {
        done(in, GW_OP_ARM, &error);
        return;
    }
    in->base.record.codec = terms.codec;
    gw_qmp_batch_init(&in->batch, armed);
    gw_qmp_batch_add(&in->batch, in->base.vm->qmp, "capabilities", false,
                     "migrate-set-capabilities", gw_steal_ptr(&terms.capabilities));
    gw_qmp_batch_add(&in->batch, in->base.vm->qmp, "parameters", false, "migrate-set-parameters",
                     gw_steal_ptr(&terms.parameters));
    gw_lockwait_arm(&in->batch, in->base.vm);
    gw_qmp_batch_end(&in->batch);
    gw_native_terms_fini(&terms);
}

/* LISTEN: QEMU picks a free port of the range; which one, only query-migrate says. */

static int open_verify(struct incoming *in, const json_t *replies, struct gw_error *error)
{
    if (!in->base.wishes.verify)
        return 0;
    return gw_migration_open_verify(&in->base,
                                    json_string_value(json_object_get(replies, "ramblocks")),
                                    error);
}

static void ask_for_ramblocks(struct incoming *in)
{
    gw_qmp_batch_add(&in->batch, in->base.vm->qmp, "ramblocks", false, "human-monitor-command",
                     json_pack("{s:s}", "command-line", "info ramblock"));
}

static void listening(struct gw_qmp_batch *batch, json_t *replies, const struct gw_error *error)
{
    struct incoming *in = gw_container_of(batch, struct incoming, batch);
    const struct gw_config *config = in->base.daemon->config;
    struct gw_error listen_error;
    const char *port;

    if (error) {
        listen_error = *error;
        gw_error_prefix(&listen_error, "QEMU cannot listen on %s, ports %u to %u", in->host,
                        config->migration_port_min, config->migration_port_max);
        gw_error_hint(&listen_error,
                      "free a port of that range on %s, or set migration_ports there",
                      in->base.record.to);
        done(in, GW_OP_LISTEN, &listen_error);
        return;
    }
    port = json_string_value(json_object_get(
        json_array_get(json_object_get(json_object_get(replies, "migrate"), "socket-address"), 0),
        "port"));
    if (!port || strlen(port) >= sizeof in->port) {
        gw_error_set(&listen_error, GW_E_QEMU, "QEMU does not say on which port it listens");
        done(in, GW_OP_LISTEN, &listen_error);
        return;
    }
    memcpy(in->port, port, strlen(port) + 1);
    done(in, GW_OP_LISTEN, open_verify(in, replies, &listen_error) < 0 ? &listen_error : NULL);
}

static json_t *listen_args(const struct incoming *in)
{
    const struct gw_config *config = in->base.daemon->config;
    char first[8];
    json_t *address;

    snprintf(first, sizeof first, "%u", config->migration_port_min);
    address = json_pack("{s:s, s:s, s:s, s:s, s:i}", "transport", "socket", "type", "inet", "host",
                        in->host, "port", first, "to", (int)config->migration_port_max);
    return json_pack("{s:[{s:s, s:o}]}", "channels", "channel-type", "main", "addr", address);
}

/* On the carrier's route QEMU listens on a unix socket, and the carrier for the source. */

static int open_carrier(struct incoming *in, const char *ramblocks, struct gw_error *error)
{
    const struct gw_config *config = in->base.daemon->config;
    struct gw_carrier_options options;
    struct gw_ram ram;

    if (gw_ram_open(&ram, in->base.vm->process.pid, ramblocks, error) < 0)
        gw_migration_log(&in->base, GW_LOG_WARNING, "%s: pages pass through QEMU, whole",
                         error->msg);
    else if (ram.n_blocks == 0 || !ram.block[0].writable)
        gw_migration_log(&in->base, GW_LOG_WARNING,
                         "QEMU does not tell where its RAM is, or has it read-only: pages pass "
                         "through it, whole");
    gw_migration_carrier_options(&in->base, in->carrier_path, &options);
    options.host = in->host;
    evutil_secure_rng_get_bytes(options.secret, sizeof options.secret);
    json_decref(in->carrier_offer);
    in->carrier_offer = gw_carrier_offer_to_json(options.secret, &ram);
    if (gw_carrier_new_destination(&options, &ram, config->migration_port_min,
                                   config->migration_port_max, &in->base.carrier, error) < 0)
        return -1;
    snprintf(in->port, sizeof in->port, "%u", gw_carrier_port(in->base.carrier));
    return 0;
}

static void carrier_listening(struct gw_qmp_batch *batch, json_t *replies,
                              const struct gw_error *error)
{
    struct incoming *in = gw_container_of(batch, struct incoming, batch);
    const char *ramblocks = json_string_value(json_object_get(replies, "ramblocks"));
    struct gw_error why;

    if (error)
        why = *error;
    else if (!in->base.vm)
        gw_error_set(&why, GW_E_QEMU_GONE, "QEMU has ended");
    else if (open_carrier(in, ramblocks ? ramblocks : "", &why) == 0) {
        done(in, GW_OP_LISTEN, open_verify(in, replies, &why) < 0 ? &why : NULL);
        return;
    }
    gw_error_prefix(&why, "the carrier on %s cannot be opened", in->base.record.to);
    done(in, GW_OP_LISTEN, &why);
}

static void listen_for_carrier(struct incoming *in)
{
    const char *rundir = in->base.vm->rundir;

    snprintf(in->carrier_path, sizeof in->carrier_path, "%s/carrier", rundir);
    gw_qmp_batch_fini(&in->batch);
    gw_qmp_batch_init(&in->batch, carrier_listening);
    gw_qmp_batch_add(&in->batch, in->base.vm->qmp, "listen", false, "migrate-incoming",
                     json_pack("{s:[{s:s, s:{s:s, s:s, s:s}}]}", "channels", "channel-type", "main",
                               "addr", "transport", "socket", "type", "unix", "path",
                               in->carrier_path));
    ask_for_ramblocks(in);
    gw_qmp_batch_end(&in->batch);
}

void gw_incoming_listen(struct incoming *in)
{
    snprintf(in->host, sizeof in->host, "%s", gw_daemon_migration_address(in->base.daemon));
    if (in->base.wishes.carrier) {
        listen_for_carrier(in);
        return;
    }
    gw_qmp_batch_fini(&in->batch);
    gw_qmp_batch_init(&in->batch, listening);
    gw_qmp_batch_add(&in->batch, in->base.vm->qmp, "listen", false, "migrate-incoming",
                     listen_args(in));
    gw_qmp_batch_add(&in->batch, in->base.vm->qmp, "migrate", false, "query-migrate", NULL);
    if (in->base.wishes.verify)
        ask_for_ramblocks(in);
    gw_qmp_batch_end(&in->batch);
}
