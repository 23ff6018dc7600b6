/* Notifications of what WebDAV requests change: what the parts of the module share.
 *
 * ngx_http_tidewire_module.c   directives, and the way of a request
 * ngx_http_tidewire_changes.c  which objects a request is about to change, and which it has changed
 * ngx_http_tidewire_worker.c   the engine of a worker, completions, locks on keys
 */
#ifndef NGX_HTTP_TIDEWIRE_H
#define NGX_HTTP_TIDEWIRE_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_http.h>
#include <tidewire.h>

/* Of http{}. */
typedef struct {
    ngx_str_t        engine;         /* a data directory, or unix:/path; empty: there is none */
    ngx_str_t        config;         /* a configuration file; empty: there is none */
    ngx_msec_t       open_timeout;   /* how long requests wait for the engine */
    ngx_msec_t       close_timeout;  /* how long a worker that ends goes on to deliver */
    ngx_uint_t       waiting_max;    /* of one worker: requests that wait for the engine or for their ack level */
    ngx_shm_zone_t  *locks;
    unsigned         used:1;         /* tidewire is on somewhere */
    unsigned         apart:1;        /* another process has the engine: it is unix:/path */
    unsigned         shared:1;       /* the first worker to come has it for all */
} ngx_http_tidewire_main_conf_t;

/* Of http{}, server{} and location{}. */
typedef struct {
    ngx_flag_t                 enable;
    ngx_flag_t                 bucket_in_path;
    ngx_http_complex_value_t  *bucket;
    ngx_http_complex_value_t  *requester;
    ngx_http_complex_value_t  *request_id;
    ngx_str_t                  prefix;
    ngx_uint_t                 ack;  /* tidewire_ack_t */
    ngx_msec_t                 ack_timeout;
    ngx_uint_t                 pass; /* what the engine refuses is done all the same */
    ngx_uint_t                 collection_max;
} ngx_http_tidewire_loc_conf_t;

/* One object that a request changes. */
typedef struct {
    tidewire_event_type_t    type;
    ngx_str_t                bucket;
    ngx_str_t                key;
    ngx_str_t                data;        /* JSON, or empty */
    u_char                  *path;        /* NULL for PUT, where the body's file tells */
    off_t                    size;        /* that a created file must have; -1: any */
    ino_t                    ino;         /* with ctime: as it was before, if it existed */
    struct timespec          ctime;
    unsigned                 removed:1;
    unsigned                 collection:1;
    unsigned                 existed:1;
    tidewire_reservation_t  *reservation; /* NULL: no rule wants to know, or it is committed or aborted */
} ngx_http_tidewire_change_t;

typedef struct ngx_http_tidewire_wait_s  ngx_http_tidewire_wait_t;

/* Of one request that may change something. */
typedef struct {
    ngx_http_request_t        *request;
    ngx_array_t                changes;     /* ngx_http_tidewire_change_t */
    ngx_queue_t                held;        /* while it waits for the engine or a lock */
    ngx_msec_t                 held_since;
    ngx_http_tidewire_wait_t  *wait;        /* while it waits for the ack level */
    ngx_int_t                  rc;          /* what it is finalized with after that */
    uint32_t                   stripe[2];   /* of the locks that it holds */
    unsigned                   stripes:2;   /* how many; 3: all */
    unsigned                   reserved:1;
    unsigned                   is_held:1;
    unsigned                   operating:1; /* nginx is doing it now */
    unsigned                   committed:1;
    unsigned                   header_held:1;
    unsigned                   failed:1;    /* done, but the engine has not accepted what there is to tell */
} ngx_http_tidewire_ctx_t;

extern ngx_module_t  ngx_http_tidewire_module;

/* --- changes: answers are NGX_OK, a status, or NGX_DECLINED where there is nothing that this module could tell. */

/* Whether a rule could want what the request does; also 1 if only the plan can tell. */
ngx_uint_t ngx_http_tidewire_wanted(ngx_http_request_t *r, const tidewire_engine_t *engine);
/* Finds out what the request is about to change. */
ngx_int_t ngx_http_tidewire_plan(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx);
/* Reserves an event for each change; NGX_DECLINED if no rule wants any of them, NGX_BUSY if the engine refuses, NGX_AGAIN if
 * the process that had it is gone and another one is yet to come. */
ngx_int_t ngx_http_tidewire_reserve(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx,
    const tidewire_engine_t *engine);
/* Commits what has happened and aborts the rest. `rc` is how the request ended; `blocking`: waits for the ack level itself. */
void ngx_http_tidewire_commit(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx, ngx_int_t rc, ngx_uint_t blocking);
/* Aborts what is still reserved. */
void ngx_http_tidewire_abort(ngx_http_tidewire_ctx_t *ctx);

/* --- worker */

ngx_int_t ngx_http_tidewire_init_locks(ngx_shm_zone_t *zone, void *data);
ngx_int_t ngx_http_tidewire_init_process(ngx_cycle_t *cycle);
void ngx_http_tidewire_exit_process(ngx_cycle_t *cycle);
/* NULL while it is not open. */
const tidewire_engine_t *ngx_http_tidewire_engine(void);
/* Counts the request among those that the engine must not be closed under, until it is freed. */
ngx_int_t ngx_http_tidewire_enter(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx);
/* Ends a wait that no completion will come for. */
void ngx_http_tidewire_wait_end(ngx_http_tidewire_ctx_t *ctx);
/* Whether one more request may wait. */
ngx_uint_t ngx_http_tidewire_may_wait(void);
/* Has the request wait for the engine or a lock; it is taken up again by ngx_http_tidewire_resume. */
void ngx_http_tidewire_hold(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx);
/* What the ack level is waited with: one for all changes of a request. */
ngx_http_tidewire_wait_t *ngx_http_tidewire_wait(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx);
tidewire_result_t ngx_http_tidewire_submit(ngx_http_tidewire_wait_t *wait, const tidewire_reservation_t *reservation,
    const tidewire_commit_t *fields, const tidewire_publish_options_t *options, tidewire_error_t **err);
/* Locks the keys of the changes; NGX_AGAIN if another worker is at one of them. */
ngx_int_t ngx_http_tidewire_lock(ngx_http_tidewire_ctx_t *ctx);
void ngx_http_tidewire_unlock(ngx_http_tidewire_ctx_t *ctx);
/* Logs an error of the library and frees it. */
void ngx_http_tidewire_log_error(ngx_log_t *log, ngx_uint_t level, const char *what, tidewire_error_t *err);

/* --- module */

/* Goes on with a request that was held; `expired`: it has waited long enough. */
void ngx_http_tidewire_resume(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx, ngx_uint_t expired);
/* Answers a request whose changes have reached their ack level, or never will (NGX_ERROR), or not in time (NGX_AGAIN). */
void ngx_http_tidewire_answer(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx, ngx_int_t reached);

/* The engine and its configuration, as the directives say. */
tidewire_options_t ngx_http_tidewire_options(const ngx_http_tidewire_main_conf_t *conf);

static ngx_inline tidewire_bytes_t
ngx_http_tidewire_bytes(const ngx_str_t *s)
{
    return tidewire_bytes(s->data, s->len);
}

#endif
