/* Notifications of what WebDAV requests change: directives, and the way of a request.
 *
 * The handler stands before that of ngx_http_dav_module in the content phase. When the body is there it reserves an event
 * for each object that the request is about to change, has nginx do it, looks at what has happened, and commits or aborts.
 * All of that is one step of the worker. If the answer is to wait until the events are safe, it is kept back until the
 * engine tells so through the worker's event loop.
 */
#include "ngx_http_tidewire.h"

static void *ngx_http_tidewire_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_tidewire_init_main_conf(ngx_conf_t *cf, void *conf);
static void *ngx_http_tidewire_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_tidewire_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child);
static char *ngx_http_tidewire_set_engine(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *ngx_http_tidewire_set_path(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *ngx_http_tidewire_set_prefix(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *ngx_http_tidewire_set_metrics(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static ngx_int_t ngx_http_tidewire_init(ngx_conf_t *cf);
static ngx_int_t ngx_http_tidewire_init_module(ngx_cycle_t *cycle);

static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;


static ngx_conf_enum_t  ngx_http_tidewire_acks[] = {
    { ngx_string("memory"), TIDEWIRE_ACK_MEMORY },
    { ngx_string("written"), TIDEWIRE_ACK_WRITTEN },
    { ngx_string("synced"), TIDEWIRE_ACK_SYNCED },
    { ngx_null_string, 0 }
};


static ngx_conf_enum_t  ngx_http_tidewire_refusals[] = {
    { ngx_string("refuse"), 0 },
    { ngx_string("pass"), 1 },
    { ngx_null_string, 0 }
};


#define NGX_HTTP_TIDEWIRE_ANY_CONF  (NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF)

static ngx_command_t  ngx_http_tidewire_commands[] = {

    { ngx_string("tidewire_engine"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE12,
      ngx_http_tidewire_set_engine,
      NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_http_tidewire_main_conf_t, engine),
      NULL },

    { ngx_string("tidewire_config"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_tidewire_set_path,
      NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_http_tidewire_main_conf_t, config),
      NULL },

    { ngx_string("tidewire_open_timeout"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_http_tidewire_main_conf_t, open_timeout),
      NULL },

    { ngx_string("tidewire_close_timeout"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_http_tidewire_main_conf_t, close_timeout),
      NULL },

    { ngx_string("tidewire_waiting_max"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_http_tidewire_main_conf_t, waiting_max),
      NULL },

    { ngx_string("tidewire"),
      NGX_HTTP_TIDEWIRE_ANY_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tidewire_loc_conf_t, enable),
      NULL },

    { ngx_string("tidewire_bucket"),
      NGX_HTTP_TIDEWIRE_ANY_CONF|NGX_CONF_TAKE1,
      ngx_http_set_complex_value_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tidewire_loc_conf_t, bucket),
      NULL },

    { ngx_string("tidewire_bucket_in_path"),
      NGX_HTTP_TIDEWIRE_ANY_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tidewire_loc_conf_t, bucket_in_path),
      NULL },

    { ngx_string("tidewire_prefix"),
      NGX_HTTP_TIDEWIRE_ANY_CONF|NGX_CONF_TAKE1,
      ngx_http_tidewire_set_prefix,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tidewire_loc_conf_t, prefix),
      NULL },

    { ngx_string("tidewire_ack"),
      NGX_HTTP_TIDEWIRE_ANY_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tidewire_loc_conf_t, ack),
      &ngx_http_tidewire_acks },

    { ngx_string("tidewire_ack_timeout"),
      NGX_HTTP_TIDEWIRE_ANY_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tidewire_loc_conf_t, ack_timeout),
      NULL },

    { ngx_string("tidewire_when_full"),
      NGX_HTTP_TIDEWIRE_ANY_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tidewire_loc_conf_t, pass),
      &ngx_http_tidewire_refusals },

    { ngx_string("tidewire_requester"),
      NGX_HTTP_TIDEWIRE_ANY_CONF|NGX_CONF_TAKE1,
      ngx_http_set_complex_value_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tidewire_loc_conf_t, requester),
      NULL },

    { ngx_string("tidewire_request_id"),
      NGX_HTTP_TIDEWIRE_ANY_CONF|NGX_CONF_TAKE1,
      ngx_http_set_complex_value_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tidewire_loc_conf_t, request_id),
      NULL },

    { ngx_string("tidewire_collection_max"),
      NGX_HTTP_TIDEWIRE_ANY_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tidewire_loc_conf_t, collection_max),
      NULL },

    { ngx_string("tidewire_metrics"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_tidewire_set_metrics,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_tidewire_module_ctx = {
    NULL,                                  /* preconfiguration */
    ngx_http_tidewire_init,                /* postconfiguration */

    ngx_http_tidewire_create_main_conf,    /* create main configuration */
    ngx_http_tidewire_init_main_conf,      /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_tidewire_create_loc_conf,     /* create location configuration */
    ngx_http_tidewire_merge_loc_conf       /* merge location configuration */
};


ngx_module_t  ngx_http_tidewire_module = {
    NGX_MODULE_V1,
    &ngx_http_tidewire_module_ctx,         /* module context */
    ngx_http_tidewire_commands,            /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_http_tidewire_init_module,         /* init module */
    ngx_http_tidewire_init_process,        /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_tidewire_exit_process,        /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


/* --- a request */

/* Has the other handlers of the content phase do what the request asks for. */
static ngx_int_t
ngx_http_tidewire_run(ngx_http_request_t *r)
{
    ngx_int_t                   rc;
    ngx_http_phase_handler_t   *ph;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);

    for (ph = cmcf->phase_engine.handlers + r->phase_handler + 1; ph->checker == ngx_http_core_content_phase; ph++) {
        rc = ph->handler(r);

        if (rc != NGX_DECLINED) {
            return rc;
        }
    }

    return r->uri.data[r->uri.len - 1] == '/' ? NGX_HTTP_FORBIDDEN : NGX_HTTP_NOT_FOUND;
}


/* Keeps the request until it is taken up again. */
static ngx_int_t
ngx_http_tidewire_suspend(ngx_http_request_t *r)
{
    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    return NGX_DONE;
}


/* Has it wait for the engine or a lock. */
static ngx_int_t
ngx_http_tidewire_later(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx)
{
    r->main->count++;
    ngx_http_tidewire_hold(r, ctx);

    return ngx_http_tidewire_suspend(r);
}


/* The engine cannot take the events: nothing is done, or nothing is told. */
static ngx_int_t
ngx_http_tidewire_refuse(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx, ngx_int_t status)
{
    ngx_table_elt_t               *h;
    ngx_http_tidewire_loc_conf_t  *conf;

    conf = ngx_http_get_module_loc_conf(r, ngx_http_tidewire_module);
    ngx_http_tidewire_abort(ctx);

    if (conf->pass) {
        return ngx_http_tidewire_run(r);
    }

    if (status == NGX_HTTP_SERVICE_UNAVAILABLE) {
        h = ngx_list_push(&r->headers_out.headers);
        if (h == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        ngx_memzero(h, sizeof(ngx_table_elt_t));
        h->hash = 1;
        ngx_str_set(&h->key, "Retry-After");
        ngx_str_set(&h->value, "1");
    }

    return status;
}


/* There is no engine now. */
static ngx_int_t
ngx_http_tidewire_absent(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx, ngx_uint_t expired)
{
    ngx_http_tidewire_loc_conf_t  *conf;

    if (!expired && ngx_http_tidewire_may_wait()) {
        return ngx_http_tidewire_later(r, ctx);
    }

    conf = ngx_http_get_module_loc_conf(r, ngx_http_tidewire_module);
    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "tidewire: %s, the engine is not open",
                  conf->pass ? "done without telling of it" : "refused");

    return ngx_http_tidewire_refuse(r, ctx, NGX_HTTP_SERVICE_UNAVAILABLE);
}


/* What the client is told of an operation that is done, but whose events are not known to be safe. */
static ngx_int_t
ngx_http_tidewire_failed(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx, ngx_int_t reached)
{
    if (ctx->header_held) {
        ngx_http_clear_location(r);
        r->headers_out.status = 0;
        r->headers_out.content_length_n = -1;
        r->header_only = 0;
    }

    if (reached == NGX_AGAIN) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "tidewire: done, but it is not known to be told safely within tidewire_ack_timeout");
        return NGX_HTTP_GATEWAY_TIME_OUT;
    }

    return NGX_HTTP_INTERNAL_SERVER_ERROR;
}


static ngx_int_t
ngx_http_tidewire_operate(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx, ngx_uint_t expired)
{
    ngx_int_t                      rc;
    const tidewire_engine_t       *engine;
    ngx_http_tidewire_loc_conf_t  *conf;

    conf = ngx_http_get_module_loc_conf(r, ngx_http_tidewire_module);
    engine = ngx_http_tidewire_engine();

    if (engine == NULL) {
        return ngx_http_tidewire_absent(r, ctx, expired);
    }

    if (!ctx->reserved) {
        if (conf->ack != TIDEWIRE_ACK_MEMORY && !ngx_http_tidewire_may_wait()) {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "tidewire: %s, tidewire_waiting_max requests are waiting",
                          conf->pass ? "done without telling of it" : "refused");

            return ngx_http_tidewire_refuse(r, ctx, NGX_HTTP_SERVICE_UNAVAILABLE);
        }

        rc = ngx_http_tidewire_reserve(r, ctx, engine);

        switch (rc) {
        case NGX_OK:
            ctx->reserved = 1;
            break;
        case NGX_DECLINED:
            return ngx_http_tidewire_run(r);
        case NGX_AGAIN:
            return ngx_http_tidewire_absent(r, ctx, expired);
        case NGX_BUSY:
            return ngx_http_tidewire_refuse(r, ctx, NGX_HTTP_SERVICE_UNAVAILABLE);
        case NGX_ERROR:
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        default:
            return ngx_http_tidewire_refuse(r, ctx, rc);
        }
    }

    if (ngx_http_tidewire_lock(ctx) != NGX_OK) {
        if (!expired && ngx_http_tidewire_may_wait()) {
            return ngx_http_tidewire_later(r, ctx);
        }

        return ngx_http_tidewire_refuse(r, ctx, NGX_HTTP_SERVICE_UNAVAILABLE);
    }

    /* The handler of PUT finalizes the request itself, which must not free it here. */
    r->main->count++;
    ctx->operating = 1;
    rc = ngx_http_tidewire_run(r);
    ctx->operating = 0;

    if (!ctx->committed) {
        ngx_http_tidewire_commit(r, ctx, rc, 0);
    }

    ngx_http_tidewire_unlock(ctx);

    if (ctx->wait) {
        ctx->rc = rc;
        return ngx_http_tidewire_suspend(r);
    }

    r->main->count--;

    return ctx->failed ? ngx_http_tidewire_failed(r, ctx, NGX_ERROR) : rc;
}


void
ngx_http_tidewire_resume(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx, ngx_uint_t expired)
{
    ngx_connection_t  *c;

    c = r->connection;
    ngx_http_set_log_request(c->log, r);

    ngx_http_finalize_request(r, ngx_http_tidewire_operate(r, ctx, expired));
    ngx_http_run_posted_requests(c);
}


void
ngx_http_tidewire_answer(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx, ngx_int_t reached)
{
    ngx_int_t          rc;
    ngx_connection_t  *c;

    c = r->connection;
    ngx_http_set_log_request(c->log, r);

    if (reached != NGX_OK || ctx->failed) {
        rc = ngx_http_tidewire_failed(r, ctx, reached);
    } else if (ctx->header_held) {
        rc = ngx_http_next_header_filter(r);
    } else {
        rc = ctx->rc;
    }

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}


static void
ngx_http_tidewire_body(ngx_http_request_t *r)
{
    ngx_http_finalize_request(r, ngx_http_tidewire_operate(r, ngx_http_get_module_ctx(r, ngx_http_tidewire_module), 0));
}


static ngx_int_t
ngx_http_tidewire_handler(ngx_http_request_t *r)
{
    ngx_int_t                      rc;
    const tidewire_engine_t       *engine;
    ngx_http_tidewire_ctx_t       *ctx;
    ngx_http_tidewire_loc_conf_t  *conf;

    conf = ngx_http_get_module_loc_conf(r, ngx_http_tidewire_module);

    if (!conf->enable || r != r->main) {
        return NGX_DECLINED;
    }

    switch (r->method) {
    case NGX_HTTP_PUT:
        if (r->headers_in.content_range) {
            return NGX_DECLINED;
        }
        break;
    case NGX_HTTP_DELETE:
    case NGX_HTTP_MKCOL:
    case NGX_HTTP_COPY:
    case NGX_HTTP_MOVE:
    case NGX_HTTP_LOCK:
        break;
    default:
        return NGX_DECLINED;
    }

    engine = ngx_http_tidewire_engine();
    if (engine && !ngx_http_tidewire_wanted(r, engine)) {
        return NGX_DECLINED;
    }

    ctx = ngx_pcalloc(r->pool, sizeof(ngx_http_tidewire_ctx_t));
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->request = r;
    rc = ngx_http_tidewire_plan(r, ctx);

    if (rc == NGX_ERROR || (rc == NGX_OK && ctx->changes.nelts && ngx_http_tidewire_enter(r, ctx) != NGX_OK)) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (rc != NGX_OK || ctx->changes.nelts == 0) {
        return rc == NGX_OK ? NGX_DECLINED : rc;
    }

    ngx_http_set_ctx(r, ctx, ngx_http_tidewire_module);

    if (r->method != NGX_HTTP_PUT) {
        return ngx_http_tidewire_operate(r, ctx, 0);
    }

    /* As ngx_http_dav_module wants to have it. */
    r->request_body_in_file_only = 1;
    r->request_body_in_persistent_file = 1;
    r->request_body_in_clean_file = 1;
    r->request_body_file_group_access = 1;
    r->request_body_file_log_level = 0;

    rc = ngx_http_read_client_request_body(r, ngx_http_tidewire_body);

    return rc >= NGX_HTTP_SPECIAL_RESPONSE ? rc : NGX_DONE;
}


static ngx_int_t
ngx_http_tidewire_header_filter(ngx_http_request_t *r)
{
    ngx_http_tidewire_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_tidewire_module);

    if (ctx == NULL || !ctx->operating || r != r->main) {
        return ngx_http_next_header_filter(r);
    }

    /* PUT answers in the midst of it, others than PUT with a body too, which cannot be kept back. */
    if (!ctx->committed) {
        ngx_http_tidewire_commit(r, ctx, r->headers_out.status, r->method != NGX_HTTP_PUT);
    }

    if (r->method == NGX_HTTP_PUT && (ctx->wait || ctx->failed)) {
        ctx->header_held = 1;
        return NGX_DONE;
    }

    return ngx_http_next_header_filter(r);
}


static ngx_int_t
ngx_http_tidewire_metrics(ngx_http_request_t *r)
{
    char                     *text;
    size_t                    len;
    ngx_buf_t                *b;
    ngx_int_t                 rc;
    ngx_chain_t               out;
    tidewire_error_t         *err;
    const tidewire_engine_t  *engine;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    engine = ngx_http_tidewire_engine();
    if (engine == NULL) {
        return NGX_HTTP_SERVICE_UNAVAILABLE;
    }

    if (tidewire_prometheus(engine, TIDEWIRE_METRICS_PROMETHEUS, &text, &len, &err) != TIDEWIRE_OK) {
        ngx_http_tidewire_log_error(r->connection->log, NGX_LOG_ERR, "no metrics", err);
        return NGX_HTTP_SERVICE_UNAVAILABLE;
    }

    b = ngx_create_temp_buf(r->pool, len);
    if (b == NULL) {
        tidewire_string_free(text);
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->last = ngx_cpymem(b->pos, text, len);
    b->last_buf = 1;
    b->last_in_chain = 1;
    tidewire_string_free(text);
    out.buf = b;
    out.next = NULL;

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = len;
    ngx_str_set(&r->headers_out.content_type, "text/plain; version=0.0.4");
    r->headers_out.content_type_len = r->headers_out.content_type.len;

    rc = ngx_http_send_header(r);
    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    return ngx_http_output_filter(r, &out);
}


/* --- configuration */

static void *
ngx_http_tidewire_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_tidewire_main_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_tidewire_main_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    conf->open_timeout = NGX_CONF_UNSET_MSEC;
    conf->close_timeout = NGX_CONF_UNSET_MSEC;
    conf->waiting_max = NGX_CONF_UNSET_UINT;

    return conf;
}


static char *
ngx_http_tidewire_init_main_conf(ngx_conf_t *cf, void *data)
{
    ngx_http_tidewire_main_conf_t  *conf = data;

    ngx_conf_init_msec_value(conf->open_timeout, 10000);
    ngx_conf_init_msec_value(conf->close_timeout, 500);
    ngx_conf_init_uint_value(conf->waiting_max, 10000);

    return NGX_CONF_OK;
}


static void *
ngx_http_tidewire_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_tidewire_loc_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_tidewire_loc_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    conf->enable = NGX_CONF_UNSET;
    conf->bucket_in_path = NGX_CONF_UNSET;
    conf->ack = NGX_CONF_UNSET_UINT;
    conf->ack_timeout = NGX_CONF_UNSET_MSEC;
    conf->pass = NGX_CONF_UNSET_UINT;
    conf->collection_max = NGX_CONF_UNSET_UINT;

    return conf;
}


static ngx_int_t
ngx_http_tidewire_default(ngx_conf_t *cf, ngx_http_complex_value_t **value, ngx_http_complex_value_t *parent, char *text)
{
    ngx_str_t                          source;
    ngx_http_compile_complex_value_t   ccv;

    if (*value) {
        return NGX_OK;
    }

    *value = parent;
    if (parent) {
        return NGX_OK;
    }

    *value = ngx_pcalloc(cf->pool, sizeof(ngx_http_complex_value_t));
    if (*value == NULL) {
        return NGX_ERROR;
    }

    source.data = (u_char *) text;
    source.len = ngx_strlen(text);

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));
    ccv.cf = cf;
    ccv.value = &source;
    ccv.complex_value = *value;

    return ngx_http_compile_complex_value(&ccv);
}


static char *
ngx_http_tidewire_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_tidewire_loc_conf_t  *prev = parent;
    ngx_http_tidewire_loc_conf_t  *conf = child;

    ngx_http_core_loc_conf_t       *clcf;
    ngx_http_tidewire_main_conf_t  *tmcf;

    ngx_conf_merge_value(conf->enable, prev->enable, 0);
    ngx_conf_merge_uint_value(conf->ack, prev->ack, TIDEWIRE_ACK_SYNCED);
    ngx_conf_merge_msec_value(conf->ack_timeout, prev->ack_timeout, 30000);
    ngx_conf_merge_uint_value(conf->pass, prev->pass, 0);
    ngx_conf_merge_uint_value(conf->collection_max, prev->collection_max, 1000);

    /* One takes the place of the other. */
    if (conf->bucket == NULL && conf->bucket_in_path == NGX_CONF_UNSET) {
        conf->bucket = prev->bucket;
        conf->bucket_in_path = prev->bucket_in_path;
    }
    if (conf->bucket_in_path == NGX_CONF_UNSET) {
        conf->bucket_in_path = 0;
    }

    if (!conf->enable) {
        ngx_conf_merge_str_value(conf->prefix, prev->prefix, "");
        return NGX_CONF_OK;
    }

    if (ngx_http_tidewire_default(cf, &conf->requester, prev->requester, "$remote_user") != NGX_OK
        || ngx_http_tidewire_default(cf, &conf->request_id, prev->request_id, "$request_id") != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    if (conf->bucket && conf->bucket_in_path) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "give tidewire_bucket or tidewire_bucket_in_path, not both");
        return NGX_CONF_ERROR;
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (conf->prefix.len == 0) {
        conf->prefix = prev->prefix;
    }

    if (conf->prefix.len == 0) {
        ngx_str_set(&conf->prefix, "/");

        if (clcf->name.len && clcf->name.data[0] == '/' && clcf->name.data[clcf->name.len - 1] == '/'
#if (NGX_PCRE)
            && clcf->regex == NULL
#endif
           )
        {
            conf->prefix = clcf->name;
        }
    }

    tmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_tidewire_module);
    tmcf->used = 1;

    /* That of http{} and server{} is for their locations, which may still say. */
    if (conf->bucket == NULL && !conf->bucket_in_path) {
        if (clcf->name.len == 0) {
            return NGX_CONF_OK;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no tidewire_bucket for location \"%V\": name one, or set tidewire_bucket_in_path on", &clcf->name);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_tidewire_set_engine(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t                      *value;
    ngx_http_tidewire_main_conf_t  *tmcf = conf;

    value = cf->args->elts;

    if (cf->args->nelts == 3) {
        if (ngx_strcmp(value[2].data, "shared") != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\" is not known, only \"shared\" may follow the data directory",
                               &value[2]);
            return NGX_CONF_ERROR;
        }

        tmcf->shared = 1;
    }

    if (ngx_strncmp(value[1].data, "unix:", 5) != 0) {
        if (ngx_strstr(value[1].data, "://") != NULL) {
            return "is neither a data directory nor unix:/path";
        }

        return ngx_http_tidewire_set_path(cf, cmd, conf);
    }

    if (tmcf->shared) {
        return "is an engine that another process has; \"shared\" is for a data directory";
    }

    tmcf->apart = 1;

    return ngx_conf_set_str_slot(cf, cmd, conf);
}


static char *
ngx_http_tidewire_set_path(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char       *rv;
    ngx_str_t  *path;

    rv = ngx_conf_set_str_slot(cf, cmd, conf);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    path = (ngx_str_t *) ((char *) conf + cmd->offset);

    if (path->len == 0) {
        return "needs a path";
    }

    return ngx_conf_full_name(cf->cycle, path, 0) == NGX_OK ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_http_tidewire_set_prefix(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char       *rv;
    ngx_str_t  *prefix;

    rv = ngx_conf_set_str_slot(cf, cmd, conf);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    prefix = (ngx_str_t *) ((char *) conf + cmd->offset);

    if (prefix->len == 0 || prefix->data[0] != '/' || prefix->data[prefix->len - 1] != '/') {
        return "must begin and end with a slash";
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_tidewire_set_metrics(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_tidewire_metrics;

    return NGX_CONF_OK;
}


tidewire_options_t
ngx_http_tidewire_options(const ngx_http_tidewire_main_conf_t *conf)
{
    tidewire_options_t  options = TIDEWIRE_OPTIONS_INIT;

    /* A worker never waits for another process; it tries again, and requests are held meanwhile. */
    options.connect_timeout_ms = 1;

    if (conf->apart) {
        options.address = ngx_http_tidewire_bytes(&conf->engine);
        return options;
    }

    options.shared = conf->shared;
    options.data_dir = ngx_http_tidewire_bytes(&conf->engine);

    if (conf->config.len) {
        options.config_path = ngx_http_tidewire_bytes(&conf->config);
    } else {
        options.config_text = tidewire_str("[engine]\n");
    }

    return options;
}


/* Says what is wrong with the configuration of the engine before a worker finds out. */
static ngx_int_t
ngx_http_tidewire_validate(ngx_conf_t *cf, ngx_http_tidewire_main_conf_t *conf)
{
    const char          *place, *remedy;
    tidewire_error_t    *err;
    tidewire_options_t   options;

    if (conf->apart) {
        if (conf->config.len == 0) {
            return NGX_OK;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "tidewire_config is not for an engine that another process has: that one reads it; leave it out");
        return NGX_ERROR;
    }

    options = ngx_http_tidewire_options(conf);

    if (tidewire_validate(&options, &err) == TIDEWIRE_OK) {
        return NGX_OK;
    }

    place = tidewire_error_place(err);
    remedy = tidewire_error_remedy(err);
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "tidewire_config: %s%s%s%s%s", place ? place : "", place && *place ? ": " : "",
                       tidewire_error_message(err), remedy && *remedy ? "; " : "", remedy ? remedy : "");
    tidewire_error_free(err);

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_tidewire_init(ngx_conf_t *cf)
{
    ngx_str_t                       name = ngx_string("tidewire_locks");
    ngx_http_handler_pt            *h;
    ngx_http_core_main_conf_t      *cmcf;
    ngx_http_tidewire_main_conf_t  *conf;

    conf = ngx_http_conf_get_module_main_conf(cf, ngx_http_tidewire_module);

    if (!conf->used) {
        return NGX_OK;
    }

    if (conf->engine.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "tidewire is on, but there is no tidewire_engine: name a data directory, or unix:/path, in http{}");
        return NGX_ERROR;
    }

    if (ngx_http_tidewire_validate(cf, conf) != NGX_OK) {
        return NGX_ERROR;
    }

    conf->locks = ngx_shared_memory_add(cf, &name, 32 * ngx_pagesize, &ngx_http_tidewire_module);
    if (conf->locks == NULL) {
        return NGX_ERROR;
    }

    conf->locks->init = ngx_http_tidewire_init_locks;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_CONTENT_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_tidewire_handler;

    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_tidewire_header_filter;

    return NGX_OK;
}


/* A data directory has one process. */
static ngx_int_t
ngx_http_tidewire_init_module(ngx_cycle_t *cycle)
{
    ngx_core_conf_t                *ccf;
    ngx_http_tidewire_main_conf_t  *conf;

    conf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_tidewire_module);
    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    if (conf && conf->used && ccf->master && ccf->worker_processes > 1 && !conf->apart && !conf->shared) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "tidewire_engine %V is a data directory, which one process has, and there are %i worker_processes: "
                      "write \"shared\" behind it, and name a socket in [engine.shared] of tidewire_config; or have "
                      "\"tidewire run\" open it, and name its socket as unix:/path; or set worker_processes 1",
                      &conf->engine, ccf->worker_processes);
        return NGX_ERROR;
    }

    return NGX_OK;
}
