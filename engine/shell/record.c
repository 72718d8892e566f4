/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <time.h>

#include "shell/error_json.h"
#include "shell/record.h"

#define MS_NS      UINT64_C(1000000)
#define ROUNDS_MAX 1000 /* a migration that never converges must not fill the memory */

void gw_record_init(struct gw_record *r, uint64_t now_ns)
{
    struct timespec wall;

    memset(r, 0, sizeof *r);
    clock_gettime(CLOCK_REALTIME, &wall);
    r->begun_wall_ms = (int64_t)wall.tv_sec * 1000 + wall.tv_nsec / 1000000;
    r->begun_ns = now_ns;
    r->codec = "none";
    r->route = "native";
    r->rounds = json_array();
    r->decisions = json_array();
    r->phases = json_array();
    r->warnings = json_array();
}

void gw_record_fini(struct gw_record *r)
{
    json_decref(r->rounds);
    json_decref(r->decisions);
    json_decref(r->phases);
    json_decref(r->warnings);
    json_decref(r->carrier);
    json_decref(r->verify);
    r->carrier = r->verify = NULL;
    r->rounds = r->decisions = r->phases = r->warnings = NULL;
}

static double ms_since(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) / (double)MS_NS : 0.0;
}

static json_t *json_ms(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns && to_ns ? json_real(ms_since(from_ns, to_ns)) : json_null();
}

void gw_record_phase(struct gw_record *r, enum gw_phase phase, uint64_t now_ns)
{
    json_t *last = json_array_get(r->phases, json_array_size(r->phases) - 1);

    if (last) {
        double at_ms = json_number_value(json_object_get(last, "at_ms"));

        json_object_set_new(last, "took_ms", json_real(ms_since(r->begun_ns, now_ns) - at_ms));
    }
    if (gw_phase_is_end(phase))
        r->ended_ns = now_ns;
    json_array_append_new(r->phases, json_pack("{s:s, s:o}", "phase", gw_phase_name(phase), "at_ms",
                                               json_real(ms_since(r->begun_ns, now_ns))));
}

void gw_record_progress(struct gw_record *r, const struct gw_progress *p, uint64_t now_ns)
{
    size_t n = json_array_size(r->rounds);
    json_t *row = json_array_get(r->rounds, n - 1);

    if (p->round == 0)
        return;
    if (!row || json_integer_value(json_object_get(row, "round")) != p->round) {
        if (n == ROUNDS_MAX)
            json_array_remove(r->rounds, 0);
        row = json_pack("{s:I, s:o}", "round", (json_int_t)p->round, "at_ms",
                        json_real(ms_since(r->begun_ns, now_ns)));
        json_array_append_new(r->rounds, row);
    }
    json_object_set_new(row, "remaining_bytes", json_integer((json_int_t)p->remaining_bytes));
    json_object_set_new(row, "dirty_bytes_per_s", json_integer((json_int_t)p->dirty_bytes_per_s));
    json_object_set_new(row, "rate_bytes_per_s", json_integer((json_int_t)p->rate_bytes_per_s));
}

void gw_record_decisions(struct gw_record *r, const json_t *decisions, enum gw_phase phase,
                         uint64_t now_ns)
{
    json_t *decision;
    size_t i;

    json_array_foreach (decisions, i, decision) {
        json_t *copy = json_copy(decision);

        json_object_set_new(copy, "at_ms", json_real(ms_since(r->begun_ns, now_ns)));
        json_object_set_new(copy, "phase", json_string(gw_phase_name(phase)));
        json_array_append_new(r->decisions, copy);
    }
}

/*
 * QEMU says when it begins the last part and when the destination has all of it, and nothing in
 * between: the last pages, the saving, the transfer and the loading of the device state are one
 * piece, device_ms. The parts from stop_ms to resume_ms add up to the blackout.
 */
static json_t *breakdown(const struct gw_blackout *b)
{
    /* the two nodes' clocks may differ by more than it took the source to hear of it */
    uint64_t loaded_ns = b->sent_ns && b->loaded_ns > b->sent_ns ? b->sent_ns : b->loaded_ns;
    json_t *json = json_object();

    json_object_set_new(json, "stop_ms", json_ms(b->paused_ns, b->switch_ns));
    json_object_set_new(json, "last_pages_ms", json_null());
    json_object_set_new(json, "device_ms",
                        json_ms(b->switch_ns, loaded_ns ? loaded_ns : b->sent_ns));
    json_object_set_new(json, "transfer_ms", json_null());
    json_object_set_new(json, "load_ms", json_null());
    json_object_set_new(json, "confirm_ms", json_ms(loaded_ns, b->sent_ns));
    json_object_set_new(json, "verify_ms", json_ms(b->sent_ns, b->verified_ns));
    if (b->verified_ns)
        json_object_set_new(json, "commit_ms", json_ms(b->verified_ns, b->commit_ns));
    else
        json_object_set_new(json, "commit_ms",
                            json_ms(b->sent_ns ? b->sent_ns : loaded_ns, b->commit_ns));
    json_object_set_new(json, "resume_ms", json_ms(b->commit_ns, b->runs_ns));
    json_object_set_new(json, "first_packet_ms", json_ms(b->runs_ns, b->heard_ns));
    json_object_set_new(json, "lock_ms", json_ms(b->runs_ns, b->locked_ns));
    json_object_set_new(json, "lock_wait_ms",
                        b->lock_wait_ns ? json_real((double)b->lock_wait_ns / (double)MS_NS)
                                        : json_null());
    json_object_set_new(json, "swap_ms",
                        b->swap_ns ? json_real((double)b->swap_ns / (double)MS_NS) : json_null());
    return json;
}

static json_t *free_pages(const struct gw_record *r)
{
    const char *hints = gw_hints_name(r->hints);

    return json_pack("{s:s?, s:o}", "hints", hints, "not_sent_bytes",
                     r->hints == GW_HINTS_UNKNOWN ? json_null()
                                                  : json_integer((json_int_t)r->not_sent_bytes));
}

static json_t *progress(const struct gw_record *r, const struct gw_machine *m, uint64_t now_ns)
{
    const struct gw_progress *p = &m->progress;
    json_t *eta = json_null();

    if (m->phase == GW_PRECOPY && p->rate_bytes_per_s > p->dirty_bytes_per_s)
        eta = json_integer(
            (json_int_t)(p->remaining_bytes * 1000 / (p->rate_bytes_per_s - p->dirty_bytes_per_s)));
    return json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "phase", gw_phase_name(m->phase),
        "round", (json_int_t)p->round, "total_bytes", (json_int_t)p->total_bytes, "sent_bytes",
        (json_int_t)p->wire_bytes, "remaining_bytes", (json_int_t)p->remaining_bytes,
        "rate_bytes_per_s", (json_int_t)p->rate_bytes_per_s, "dirty_bytes_per_s",
        (json_int_t)p->dirty_bytes_per_s, "eta_ms", eta, "expected_blackout_ms",
        p->expected_blackout_ns ? json_real((double)p->expected_blackout_ns / (double)MS_NS)
                                : json_null(),
        "elapsed_ms", json_real(ms_since(r->begun_ns, r->ended_ns ? r->ended_ns : now_ns)));
}

json_t *gw_iso_time(int64_t wall_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    char text[64];
    struct tm tm;

    gmtime_r(&seconds, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_string(text);
}

json_t *gw_record_to_json(const struct gw_record *r, const char *id, const char *vm,
                          const char *uuid, const struct gw_machine *m, uint64_t now_ns)
{
    const struct gw_blackout *b = &r->blackout;
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o}", "id", id, "vm",
                  vm, "uuid", uuid, "from", r->from, "to", r->to, "role",
                  m->role == GW_SOURCE ? "source" : "destination", "state", gw_phase_name(m->phase),
                  "route", r->route, "transport", "tcp", "codec", r->codec, "policy", r->policy,
                  "started_at", gw_iso_time(r->begun_wall_ms));

    json_object_set_new(json, "total_ms",
                        r->ended_ns ? json_real(ms_since(r->begun_ns, r->ended_ns)) : json_null());
    json_object_set_new(json, "blackout_ms", json_ms(b->paused_ns, b->runs_ns));
    json_object_set_new(json, "blackout_uncertainty_ms",
                        b->runs_ns ? json_real((double)b->uncertain_ns / (double)MS_NS)
                                   : json_null());
    json_object_set_new(json, "guest_bytes", json_integer((json_int_t)m->progress.total_bytes));
    json_object_set_new(json, "wire_bytes", json_integer((json_int_t)m->progress.wire_bytes));
    json_object_set_new(json, "free_pages", free_pages(r));
    if (r->carrier)
        json_object_set(json, "carrier", r->carrier);
    if (r->verify)
        json_object_set(json, "verify", r->verify);
    json_object_set(json, "rounds", r->rounds);
    json_object_set(json, "phases", r->phases);
    json_object_set(json, "decisions", r->decisions);
    json_object_set_new(json, "breakdown", breakdown(b));
    json_object_set(json, "warnings", r->warnings);
    json_object_set_new(json, "progress", progress(r, m, now_ns));
    if (m->error.code != GW_OK && m->phase != GW_COMPLETED)
        json_object_set_new(json, "error", gw_error_to_json(&m->error));
    return json;
}
