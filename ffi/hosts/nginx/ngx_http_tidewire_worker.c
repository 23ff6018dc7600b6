/* What a worker process has: the engine, the requests that wait for it, and locks on keys that all workers share. */
#include "ngx_http_tidewire.h"

#include <pthread.h>

/* Between two tries to open the engine, and to lock a key that another worker is at. */
#define NGX_HTTP_TIDEWIRE_OPEN_MS    50
#define NGX_HTTP_TIDEWIRE_LOCK_MS    2
/* Between two complaints that it cannot be opened. */
#define NGX_HTTP_TIDEWIRE_COMPLAIN_S 10
/* A worker that is to end keeps the engine so long for requests on connections that it has accepted already. */
#define NGX_HTTP_TIDEWIRE_LEAVE_MS   200
#define NGX_HTTP_TIDEWIRE_STRIPES    1024
#define NGX_HTTP_TIDEWIRE_TAKE       64

struct ngx_http_tidewire_wait_s {
    ngx_http_request_t        *request;  /* NULL: it has been answered, or is gone */
    ngx_http_tidewire_ctx_t   *ctx;
    ngx_http_tidewire_wait_t  *next;     /* of those that are not in use */
    ngx_event_t                timer;
    ngx_uint_t                 pending;  /* completions that are still to come */
    unsigned                   failed:1;
};

typedef struct {
    const ngx_http_tidewire_main_conf_t  *conf;
    ngx_log_t                            *log;
    tidewire_engine_t                    *engine;
    tidewire_completions_t               *completions;
    ngx_connection_t                     *connection;  /* of the descriptor of completions */
    ngx_event_t                           retry;       /* opens the engine, and takes up requests that are held */
    ngx_event_t                           leave;       /* closes the engine before the worker ends */
    ngx_queue_t                           held;
    ngx_http_tidewire_wait_t             *free;
    time_t                                complain;    /* when to say again that the engine cannot be opened */
    ngx_uint_t                            inside;      /* requests that may still need the engine */
    ngx_uint_t                            waiting;     /* of them, those that wait for the engine, a lock or an ack level */
    pthread_mutex_t                      *locks;
    unsigned                              leaving:1;
} ngx_http_tidewire_worker_t;

static void ngx_http_tidewire_cleanup(void *data);
static void ngx_http_tidewire_wait_done(ngx_http_tidewire_wait_t *wait, ngx_int_t reached);

static ngx_http_tidewire_worker_t  worker;


/* --- the engine */

static void
ngx_http_tidewire_log(void *data, tidewire_log_level_t level, const char *target, const char *message)
{
    static const ngx_uint_t  levels[] = { NGX_LOG_ALERT, NGX_LOG_ERR, NGX_LOG_WARN, NGX_LOG_NOTICE };

    ngx_log_error(levels[level < 4 ? level : 3], (ngx_log_t *) data, 0, "tidewire: %s", message);
}


void
ngx_http_tidewire_log_error(ngx_log_t *log, ngx_uint_t level, const char *what, tidewire_error_t *err)
{
    const char  *message, *remedy;

    message = tidewire_error_message(err);
    remedy = tidewire_error_remedy(err);

    ngx_log_error(level, log, 0, "tidewire: %s: %s%s%s", what, message ? message : "", remedy && *remedy ? "; " : "",
                  remedy ? remedy : "");
    tidewire_error_free(err);
}


const tidewire_engine_t *
ngx_http_tidewire_engine(void)
{
    return worker.engine;
}


static void
ngx_http_tidewire_take(ngx_event_t *ev)
{
    size_t                     count, i;
    ngx_connection_t          *c;
    tidewire_error_t          *err;
    ngx_http_tidewire_wait_t  *wait;
    tidewire_completion_t      done[NGX_HTTP_TIDEWIRE_TAKE];

    c = ev->data;

    if (c->close) {
        /* The worker is to end when its requests have ended. */
        c->close = 0;

        if (!worker.leaving) {
            worker.leaving = 1;
            ngx_add_timer(&worker.leave, NGX_HTTP_TIDEWIRE_LEAVE_MS);
        }
    }

    do {
        if (tidewire_completions_take(worker.completions, done, NGX_HTTP_TIDEWIRE_TAKE, &count, &err) != TIDEWIRE_OK) {
            ngx_http_tidewire_log_error(worker.log, NGX_LOG_ALERT, "cannot take completions", err);
            return;
        }

        for (i = 0; i < count; i++) {
            wait = (ngx_http_tidewire_wait_t *) (uintptr_t) done[i].user_data;

            if (done[i].result != TIDEWIRE_OK) {
                wait->failed = 1;
            }

            if (--wait->pending == 0) {
                ngx_http_tidewire_wait_done(wait, wait->failed ? NGX_ERROR : NGX_OK);
            }
        }

        /* An answer may have ended the last request of a worker that leaves, but the engine is closed by a timer only. */
    } while (count == NGX_HTTP_TIDEWIRE_TAKE);
}


/* Closes what is open of the engine. */
static void
ngx_http_tidewire_close(void)
{
    tidewire_error_t  *err;

    if (worker.connection) {
        (void) ngx_del_event(worker.connection->read, NGX_READ_EVENT, 0);
        /* The descriptor is the library's. */
        worker.connection->fd = (ngx_socket_t) -1;
        ngx_free_connection(worker.connection);
        worker.connection = NULL;
    }

    if (worker.engine
        && tidewire_close(&worker.engine, worker.conf->close_timeout, &err) != TIDEWIRE_OK)
    {
        ngx_http_tidewire_log_error(worker.log, NGX_LOG_ERR, "the engine has not closed well", err);
    }

    tidewire_completions_free(&worker.completions);
}


/* NGX_AGAIN: it could not be opened now. */
static ngx_int_t
ngx_http_tidewire_open(void)
{
    ngx_connection_t    *c;
    tidewire_error_t    *err;
    tidewire_result_t    result;
    tidewire_options_t   options;

    options = ngx_http_tidewire_options(worker.conf);
    result = tidewire_open(&options, &worker.engine, &err);

    if (result != TIDEWIRE_OK) {
        if (ngx_time() < worker.complain) {
            tidewire_error_free(err);
            return NGX_AGAIN;
        }

        worker.complain = ngx_time() + NGX_HTTP_TIDEWIRE_COMPLAIN_S;

        if (result == TIDEWIRE_LOCKED) {
            tidewire_error_free(err);
            ngx_log_error(NGX_LOG_NOTICE, worker.log, 0,
                          "tidewire: another process has the data directory %V; after a reload that is the worker of before, "
                          "until its requests have ended", &worker.conf->engine);
        } else {
            /* Another worker may be about to open it. */
            ngx_http_tidewire_log_error(worker.log, result == TIDEWIRE_DISCONNECTED ? NGX_LOG_NOTICE : NGX_LOG_ERR,
                                        "the engine cannot be opened, requests wait for it", err);
        }

        return NGX_AGAIN;
    }

    if (tidewire_completions_open(worker.engine, NULL, &worker.completions, &err) != TIDEWIRE_OK) {
        ngx_http_tidewire_log_error(worker.log, NGX_LOG_ALERT, "no queue for completions", err);
        ngx_http_tidewire_close();
        return NGX_AGAIN;
    }

    c = ngx_get_connection(tidewire_completions_fd(worker.completions), worker.log);
    if (c == NULL) {
        ngx_http_tidewire_close();
        return NGX_AGAIN;
    }

    worker.connection = c;
    c->read->handler = ngx_http_tidewire_take;
    c->read->log = worker.log;
    c->log = worker.log;
    /* So nginx tells it, as it tells connections in keep-alive, when the worker is to end. */
    c->idle = 1;

    if (ngx_add_event(c->read, NGX_READ_EVENT, NGX_LEVEL_EVENT) != NGX_OK) {
        ngx_http_tidewire_close();
        return NGX_AGAIN;
    }

    ngx_log_error(NGX_LOG_NOTICE, worker.log, 0, "tidewire: the engine is open, %V", &worker.conf->engine);

    return NGX_OK;
}


static void
ngx_http_tidewire_leave(ngx_event_t *ev)
{
    if (worker.inside) {
        ngx_add_timer(ev, NGX_HTTP_TIDEWIRE_OPEN_MS);
        return;
    }

    ngx_http_tidewire_close();
}


/* --- requests that wait */

static void
ngx_http_tidewire_retry(ngx_event_t *ev)
{
    ngx_uint_t                n, expired;
    ngx_queue_t              *q;
    ngx_http_tidewire_ctx_t  *ctx;

    if (worker.engine == NULL && !worker.leaving && (!ngx_exiting || !ngx_queue_empty(&worker.held))
        && ngx_http_tidewire_open() == NGX_OK && ngx_exiting)
    {
        /* For those that wait here, and nobody will say again that the worker is to end. */
        worker.leaving = 1;
        ngx_add_timer(&worker.leave, NGX_HTTP_TIDEWIRE_LEAVE_MS);
    }

    /* Those that are held again meanwhile come next time. */
    for (n = worker.waiting; n > 0 && !ngx_queue_empty(&worker.held); n--) {
        q = ngx_queue_head(&worker.held);
        ctx = ngx_queue_data(q, ngx_http_tidewire_ctx_t, held);
        expired = ngx_current_msec - ctx->held_since >= worker.conf->open_timeout;

        if (worker.engine == NULL && !expired) {
            break;
        }

        ngx_queue_remove(q);
        ctx->is_held = 0;
        worker.waiting--;

        ngx_http_tidewire_resume(ctx->request, ctx, expired);
    }

    if (ev->timer_set) {
        return;
    }

    if (!ngx_queue_empty(&worker.held) || (worker.engine == NULL && !worker.leaving && !ngx_exiting)) {
        /* Nothing but requests keeps a worker from ending. */
        ev->cancelable = ngx_queue_empty(&worker.held);
        ngx_add_timer(ev, worker.engine ? NGX_HTTP_TIDEWIRE_LOCK_MS : NGX_HTTP_TIDEWIRE_OPEN_MS);
    }
}


ngx_int_t
ngx_http_tidewire_enter(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx)
{
    ngx_http_cleanup_t  *cln;

    cln = ngx_http_cleanup_add(r, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_tidewire_cleanup;
    cln->data = ctx;
    worker.inside++;

    return NGX_OK;
}


/* The request has been answered or is gone. */
static void
ngx_http_tidewire_cleanup(void *data)
{
    ngx_http_tidewire_ctx_t  *ctx = data;

    if (ctx->wait) {
        ngx_http_tidewire_wait_done(ctx->wait, NGX_DONE);
    }

    if (ctx->is_held) {
        ngx_queue_remove(&ctx->held);
        ctx->is_held = 0;
        worker.waiting--;
    }

    ngx_http_tidewire_unlock(ctx);
    ngx_http_tidewire_abort(ctx);
    worker.inside--;
}


ngx_uint_t
ngx_http_tidewire_may_wait(void)
{
    return worker.waiting < worker.conf->waiting_max && (worker.engine || !worker.leaving);
}


void
ngx_http_tidewire_hold(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx)
{
    if (ctx->held_since == 0) {
        ctx->held_since = ngx_current_msec;
    }

    ngx_queue_insert_tail(&worker.held, &ctx->held);
    ctx->is_held = 1;
    worker.waiting++;

    /* It may be set to a later time, or so that it would not keep the worker. */
    if (worker.engine || !worker.retry.timer_set || worker.retry.cancelable) {
        worker.retry.cancelable = 0;
        ngx_add_timer(&worker.retry, worker.engine ? NGX_HTTP_TIDEWIRE_LOCK_MS : NGX_HTTP_TIDEWIRE_OPEN_MS);
    }
}


static void
ngx_http_tidewire_late(ngx_event_t *ev)
{
    ngx_http_tidewire_wait_done(ev->data, NGX_AGAIN);
}


ngx_http_tidewire_wait_t *
ngx_http_tidewire_wait(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx)
{
    ngx_http_tidewire_wait_t      *wait;
    ngx_http_tidewire_loc_conf_t  *conf;

    wait = worker.free;

    if (wait) {
        worker.free = wait->next;
    } else {
        wait = ngx_alloc(sizeof(ngx_http_tidewire_wait_t), r->connection->log);
        if (wait == NULL) {
            return NULL;
        }
    }

    ngx_memzero(wait, sizeof(ngx_http_tidewire_wait_t));
    wait->request = r;
    wait->ctx = ctx;
    wait->timer.handler = ngx_http_tidewire_late;
    wait->timer.data = wait;
    wait->timer.log = worker.log;
    ctx->wait = wait;
    worker.waiting++;

    conf = ngx_http_get_module_loc_conf(r, ngx_http_tidewire_module);
    ngx_add_timer(&wait->timer, conf->ack_timeout);

    return wait;
}


tidewire_result_t
ngx_http_tidewire_submit(ngx_http_tidewire_wait_t *wait, const tidewire_reservation_t *reservation,
    const tidewire_commit_t *fields, const tidewire_publish_options_t *options, tidewire_error_t **err)
{
    tidewire_result_t  result;

    result = tidewire_commit_submit(reservation, fields, options, worker.completions, (uintptr_t) wait, err);

    if (result == TIDEWIRE_OK) {
        wait->pending++;
    }

    return result;
}


/* Takes the request off what it waits with, and answers it unless `reached` is NGX_DONE. */
static void
ngx_http_tidewire_wait_done(ngx_http_tidewire_wait_t *wait, ngx_int_t reached)
{
    ngx_http_request_t       *r;
    ngx_http_tidewire_ctx_t  *ctx;

    r = wait->request;
    ctx = wait->ctx;

    if (r) {
        if (wait->timer.timer_set) {
            ngx_del_timer(&wait->timer);
        }

        wait->request = NULL;
        ctx->wait = NULL;
        worker.waiting--;
    }

    if (wait->pending == 0) {
        wait->next = worker.free;
        worker.free = wait;
    }

    if (r && reached != NGX_DONE) {
        ngx_http_tidewire_answer(r, ctx, reached);
    }
}


void
ngx_http_tidewire_wait_end(ngx_http_tidewire_ctx_t *ctx)
{
    if (ctx->wait && ctx->wait->pending == 0) {
        ngx_http_tidewire_wait_done(ctx->wait, NGX_DONE);
    }
}


/* --- locks: what changes one key, and tells of it, is one step for all workers, so that the order of what is told is that of
 * the changes. */

ngx_int_t
ngx_http_tidewire_init_locks(ngx_shm_zone_t *zone, void *data)
{
    ngx_uint_t            i;
    pthread_mutex_t      *locks;
    ngx_slab_pool_t      *pool;
    pthread_mutexattr_t   attributes;

    if (data) {
        /* A reload: workers of before and of after share them. */
        zone->data = data;
        return NGX_OK;
    }

    pool = (ngx_slab_pool_t *) zone->shm.addr;

    locks = ngx_slab_calloc(pool, NGX_HTTP_TIDEWIRE_STRIPES * sizeof(pthread_mutex_t));
    if (locks == NULL) {
        return NGX_ERROR;
    }

    /* A worker may be killed while it has one. */
    if (pthread_mutexattr_init(&attributes) != 0
        || pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) != 0
        || pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) != 0)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < NGX_HTTP_TIDEWIRE_STRIPES; i++) {
        if (pthread_mutex_init(&locks[i], &attributes) != 0) {
            return NGX_ERROR;
        }
    }

    pthread_mutexattr_destroy(&attributes);
    zone->data = locks;

    return NGX_OK;
}


static ngx_int_t
ngx_http_tidewire_locked(pthread_mutex_t *lock, int rc)
{
    if (rc == EOWNERDEAD) {
        /* There is nothing that it could have left halfway: the lock guards an order, no memory. */
        (void) pthread_mutex_consistent(lock);
        return 1;
    }

    return rc == 0;
}


ngx_int_t
ngx_http_tidewire_lock(ngx_http_tidewire_ctx_t *ctx)
{
    uint32_t                     stripe;
    ngx_uint_t                   i;
    ngx_http_tidewire_change_t  *change;

    if (ctx->changes.nelts > 2) {
        /* Seldom, so it may wait for the others; these never wait while they have one. */
        for (i = 0; i < NGX_HTTP_TIDEWIRE_STRIPES; i++) {
            (void) ngx_http_tidewire_locked(&worker.locks[i], pthread_mutex_lock(&worker.locks[i]));
        }

        ctx->stripes = 3;
        return NGX_OK;
    }

    change = ctx->changes.elts;

    for (i = 0; i < ctx->changes.nelts; i++) {
        stripe = ngx_murmur_hash2(change[i].bucket.data, change[i].bucket.len)
                 ^ ngx_murmur_hash2(change[i].key.data, change[i].key.len);
        stripe %= NGX_HTTP_TIDEWIRE_STRIPES;

        if (ctx->stripes && ctx->stripe[0] == stripe) {
            continue;
        }

        if (!ngx_http_tidewire_locked(&worker.locks[stripe], pthread_mutex_trylock(&worker.locks[stripe]))) {
            ngx_http_tidewire_unlock(ctx);
            return NGX_AGAIN;
        }

        ctx->stripe[ctx->stripes++] = stripe;
    }

    return NGX_OK;
}


void
ngx_http_tidewire_unlock(ngx_http_tidewire_ctx_t *ctx)
{
    ngx_uint_t  i;

    if (ctx->stripes == 3) {
        for (i = 0; i < NGX_HTTP_TIDEWIRE_STRIPES; i++) {
            pthread_mutex_unlock(&worker.locks[i]);
        }

    } else {
        for (i = 0; i < ctx->stripes; i++) {
            pthread_mutex_unlock(&worker.locks[ctx->stripe[i]]);
        }
    }

    ctx->stripes = 0;
}


/* --- the process */

ngx_int_t
ngx_http_tidewire_init_process(ngx_cycle_t *cycle)
{
    ngx_http_tidewire_main_conf_t  *conf;

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE) {
        return NGX_OK;
    }

    conf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_tidewire_module);
    if (conf == NULL || !conf->used) {
        return NGX_OK;
    }

    worker.conf = conf;
    worker.log = cycle->log;
    worker.locks = conf->locks->data;
    ngx_queue_init(&worker.held);

    worker.retry.handler = ngx_http_tidewire_retry;
    worker.retry.log = cycle->log;
    worker.retry.data = &worker;
    worker.leave.handler = ngx_http_tidewire_leave;
    worker.leave.log = cycle->log;
    worker.leave.data = &worker;

    (void) tidewire_log_to(ngx_http_tidewire_log, cycle->log, TIDEWIRE_LOG_INFO, NULL);

    if (ngx_http_tidewire_open() != NGX_OK) {
        /* Requests wait, and others are served. */
        worker.retry.cancelable = 1;
        ngx_add_timer(&worker.retry, NGX_HTTP_TIDEWIRE_OPEN_MS);
    }

    return NGX_OK;
}


void
ngx_http_tidewire_exit_process(ngx_cycle_t *cycle)
{
    if (worker.conf == NULL) {
        return;
    }

    ngx_http_tidewire_close();
    (void) tidewire_log_to(NULL, NULL, TIDEWIRE_LOG_ERROR, NULL);
}
