/* Which objects a request is about to change, and which of them it has changed. */
#include "ngx_http_tidewire.h"

/* Longer texts of a request are not told. */
#define NGX_HTTP_TIDEWIRE_TEXT_MAX  1024

typedef struct {
    ngx_http_request_t       *request;
    ngx_http_tidewire_ctx_t  *ctx;
    ngx_str_t                 from;       /* the path of the collection that is walked, without a slash at its end */
    ngx_str_t                 from_uri;   /* its URI, with one */
    ngx_str_t                 to;         /* COPY and MOVE: the same of the destination */
    ngx_str_t                 to_uri;
    ngx_uint_t                max;
    ngx_int_t                 rc;
    unsigned                  replaced:1; /* what is walked is at the destination, and goes */
} ngx_http_tidewire_walk_t;

/* --- names */

/* The bucket and the key of a URI. NGX_DECLINED: it is outside of the prefix; NGX_HTTP_CONFLICT: it is in no bucket. */
static ngx_int_t
ngx_http_tidewire_name(ngx_http_request_t *r, const ngx_str_t *uri, ngx_str_t *bucket, ngx_str_t *key)
{
    u_char                        *slash;
    ngx_http_tidewire_loc_conf_t  *conf;

    conf = ngx_http_get_module_loc_conf(r, ngx_http_tidewire_module);

    if (uri->len < conf->prefix.len || ngx_memcmp(uri->data, conf->prefix.data, conf->prefix.len) != 0) {
        return NGX_DECLINED;
    }

    key->data = uri->data + conf->prefix.len;
    key->len = uri->len - conf->prefix.len;

    if (!conf->bucket_in_path) {
        return ngx_http_complex_value(r, conf->bucket, bucket);
    }

    slash = ngx_strlchr(key->data, key->data + key->len, '/');

    if (slash == NULL) {
        if (key->len == 0) {
            return NGX_DECLINED;
        }

        return NGX_HTTP_CONFLICT;
    }

    bucket->data = key->data;
    bucket->len = slash - key->data;
    key->len -= bucket->len + 1;
    key->data = slash + 1;

    return NGX_OK;
}


/* The file of a URI; NULL if there is none, and then nginx will say so. */
static u_char *
ngx_http_tidewire_path(ngx_http_request_t *r, ngx_str_t *uri, ngx_str_t *path)
{
    size_t                     root;
    u_char                    *last;
    ngx_str_t                  saved;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    /* A destination outside of the location. */
    if (clcf->alias && clcf->alias != NGX_MAX_SIZE_T_VALUE && uri->len < clcf->alias) {
        return NULL;
    }

    saved = r->uri;
    r->uri = *uri;
    last = ngx_http_map_uri_to_path(r, path, &root, 0);
    r->uri = saved;

    if (last == NULL) {
        return NULL;
    }

    path->len = last - path->data;

    if (path->len > 1 && last[-1] == '/') {
        path->len--;
        *--last = '\0';
    }

    return path->data;
}


/* The URI that a COPY or MOVE names; NGX_DECLINED if it is none that nginx takes. */
static ngx_int_t
ngx_http_tidewire_destination(ngx_http_request_t *r, ngx_str_t *uri)
{
    u_char           *p, *last;
    ngx_str_t         args;
    ngx_uint_t        flags;
    ngx_table_elt_t  *destination;

    destination = r->headers_in.destination;
    if (destination == NULL || destination->value.len == 0) {
        return NGX_DECLINED;
    }

    p = destination->value.data;
    last = p + destination->value.len;

    if (*p != '/') {
        /* Whether the server is this one is for nginx to say, before it does anything. */
        p = ngx_strlcasestrn(p, last, (u_char *) "://", 3 - 1);
        if (p == NULL) {
            return NGX_DECLINED;
        }

        p = ngx_strlchr(p + 3, last, '/');
        if (p == NULL) {
            return NGX_DECLINED;
        }
    }

    uri->data = p;
    uri->len = last - p;
    flags = 0;

    return ngx_http_parse_unsafe_uri(r, uri, &args, &flags) == NGX_OK ? NGX_OK : NGX_DECLINED;
}


static void
ngx_http_tidewire_state(ngx_http_tidewire_change_t *change)
{
    struct stat  fi;

    if (lstat((char *) change->path, &fi) == 0) {
        change->existed = 1;
        change->ino = fi.st_ino;
        change->ctime = fi.st_ctim;
    }
}


/* --- the plan */

static ngx_http_tidewire_change_t *
ngx_http_tidewire_change(ngx_http_tidewire_ctx_t *ctx, tidewire_event_type_t type, const ngx_str_t *bucket,
    const ngx_str_t *key)
{
    ngx_http_tidewire_change_t  *change;

    change = ngx_array_push(&ctx->changes);
    if (change == NULL) {
        return NULL;
    }

    ngx_memzero(change, sizeof(ngx_http_tidewire_change_t));
    change->type = type;
    change->bucket = *bucket;
    change->key = *key;
    change->size = -1;
    change->removed = type == TIDEWIRE_EVENT_OBJECT_REMOVED_DELETE || type == TIDEWIRE_EVENT_BUCKET_REMOVED;
    change->collection = key->len == 0 || key->data[key->len - 1] == '/';

    if (key->len == 0) {
        /* Of the bucket itself, and a bucket whose name stands in the configuration comes and goes with that. */
        change->type = change->removed ? TIDEWIRE_EVENT_BUCKET_REMOVED : TIDEWIRE_EVENT_BUCKET_CREATED;
    }

    return change;
}


/* Appends text to a JSON string: as in a URI, so that any bytes can be told. */
static u_char *
ngx_http_tidewire_escape(u_char *p, const ngx_str_t *text)
{
    size_t         i;
    u_char         c;
    static u_char  hex[] = "0123456789ABCDEF";

    for (i = 0; i < text->len; i++) {
        c = text->data[i];

        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '/' || c == '-' || c == '_'
            || c == '.' || c == '~')
        {
            *p++ = c;
        } else {
            *p++ = '%';
            *p++ = hex[c >> 4];
            *p++ = hex[c & 15];
        }
    }

    return p;
}


/* What the record says of a COPY or MOVE: whether something was overwritten, and the other end, if that has a name. */
static ngx_int_t
ngx_http_tidewire_other_end(ngx_http_request_t *r, ngx_http_tidewire_change_t *change, ngx_str_t *uri)
{
    u_char      *p;
    ngx_str_t    bucket, key;
    const char  *end;

    if (ngx_http_tidewire_name(r, uri, &bucket, &key) != NGX_OK) {
        ngx_str_null(&bucket);
        ngx_str_null(&key);
    }

    p = ngx_pnalloc(r->pool, 96 + 3 * (bucket.len + key.len));
    if (p == NULL) {
        return NGX_ERROR;
    }

    end = change->removed ? "destination" : "source";
    change->data.data = p;

    if (!change->removed) {
        p = ngx_sprintf(p, ",\"overwritten\":%s", change->existed ? "true" : "false");
    }

    if (bucket.len) {
        p = ngx_sprintf(p, ",\"%sBucket\":\"", end);
        p = ngx_http_tidewire_escape(p, &bucket);
        p = ngx_sprintf(p, "\",\"%sKey\":\"", end);
        p = ngx_http_tidewire_escape(p, &key);
        *p++ = '"';
    }

    *p++ = '}';
    change->data.data[0] = '{';
    change->data.len = p - change->data.data;

    if (change->data.len == 1) {
        change->data.len = 0;
    }

    return NGX_OK;
}


/* The same of a URI where something is to come to be. */
static ngx_int_t
ngx_http_tidewire_new_name(ngx_http_request_t *r, const ngx_str_t *uri, ngx_str_t *bucket, ngx_str_t *key)
{
    ngx_int_t  rc;

    rc = ngx_http_tidewire_name(r, uri, bucket, key);

    if (rc == NGX_HTTP_CONFLICT) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "tidewire: \"%V\" is in no bucket: with tidewire_bucket_in_path, only directories stand at the top", uri);
    }

    return rc;
}


/* A file or collection that comes to be at `uri`, as a copy of what stands at `from`. */
static ngx_int_t
ngx_http_tidewire_plan_copy(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx, ngx_str_t *uri, u_char *path, off_t size,
    ngx_str_t *from)
{
    ngx_int_t                    rc;
    ngx_str_t                    bucket, key;
    ngx_http_tidewire_change_t  *change;

    rc = ngx_http_tidewire_new_name(r, uri, &bucket, &key);
    if (rc != NGX_OK) {
        return rc == NGX_DECLINED ? NGX_OK : rc;
    }

    change = ngx_http_tidewire_change(ctx, TIDEWIRE_EVENT_OBJECT_CREATED_COPY, &bucket, &key);
    if (change == NULL) {
        return NGX_ERROR;
    }

    change->path = path;
    change->size = size;
    ngx_http_tidewire_state(change);

    return ngx_http_tidewire_other_end(r, change, from);
}


/* A file or collection that goes; `to`: where it is moved, or NULL. */
static ngx_int_t
ngx_http_tidewire_plan_removal(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx, ngx_str_t *uri, u_char *path,
    ngx_str_t *to)
{
    ngx_str_t                    bucket, key;
    ngx_http_tidewire_change_t  *change;

    /* That something is in no bucket keeps nobody from removing it. */
    switch (ngx_http_tidewire_name(r, uri, &bucket, &key)) {
    case NGX_OK:
        break;
    case NGX_ERROR:
        return NGX_ERROR;
    default:
        return NGX_OK;
    }

    change = ngx_http_tidewire_change(ctx, TIDEWIRE_EVENT_OBJECT_REMOVED_DELETE, &bucket, &key);
    if (change == NULL) {
        return NGX_ERROR;
    }

    change->path = path;

    return to ? ngx_http_tidewire_other_end(r, change, to) : NGX_OK;
}


/* The sum of two names, with a slash between or at the end where that is said, and a NUL. */
static ngx_int_t
ngx_http_tidewire_join(ngx_pool_t *pool, ngx_str_t *sum, const ngx_str_t *one, ngx_uint_t between, const ngx_str_t *two,
    ngx_uint_t end)
{
    u_char  *p;

    sum->len = one->len + between + two->len + end;
    sum->data = p = ngx_pnalloc(pool, sum->len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(p, one->data, one->len);
    if (between) {
        *p++ = '/';
    }
    p = ngx_cpymem(p, two->data, two->len);
    if (end) {
        *p++ = '/';
    }
    *p = '\0';

    return NGX_OK;
}


static ngx_int_t
ngx_http_tidewire_walk_entry(ngx_http_tidewire_walk_t *walk, const ngx_str_t *path, off_t size, ngx_uint_t collection)
{
    ngx_int_t            rc;
    ngx_str_t            name, uri, from, to, to_uri;
    ngx_pool_t          *pool;
    struct stat          fi;
    ngx_http_request_t  *r;

    r = walk->request;
    pool = r->pool;

    /* What is walked itself has no name. */
    name.data = path->data + walk->from.len + (path->len > walk->from.len);
    name.len = path->data + path->len - name.data;

    if (ngx_http_tidewire_join(pool, &uri, &walk->from_uri, 0, &name, collection && name.len) != NGX_OK
        || ngx_http_tidewire_join(pool, &from, &walk->from, name.len > 0, &name, 0) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (walk->to.len
        && (ngx_http_tidewire_join(pool, &to, &walk->to, name.len > 0, &name, 0) != NGX_OK
            || ngx_http_tidewire_join(pool, &to_uri, &walk->to_uri, 0, &name, collection && name.len) != NGX_OK))
    {
        return NGX_ERROR;
    }

    if (walk->replaced) {
        if (lstat((char *) to.data, &fi) == 0 && (ngx_uint_t) S_ISDIR(fi.st_mode) == collection) {
            return NGX_OK;
        }
        rc = ngx_http_tidewire_plan_removal(r, walk->ctx, &uri, from.data, NULL);

    } else if (walk->to.len == 0) {
        rc = ngx_http_tidewire_plan_removal(r, walk->ctx, &uri, from.data, NULL);

    } else {
        rc = ngx_http_tidewire_plan_copy(r, walk->ctx, &to_uri, to.data, size, &uri);

        if (rc == NGX_OK && r->method == NGX_HTTP_MOVE) {
            rc = ngx_http_tidewire_plan_removal(r, walk->ctx, &uri, from.data, &to_uri);
        }
    }

    if (rc == NGX_OK && walk->ctx->changes.nelts > walk->max) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "tidewire: \"%V\" has more than tidewire_collection_max (%ui) objects", &r->uri, walk->max);
        rc = NGX_HTTP_INSUFFICIENT_STORAGE;
    }

    return rc;
}


static ngx_int_t
ngx_http_tidewire_walk_file(ngx_tree_ctx_t *tree, ngx_str_t *path)
{
    ngx_http_tidewire_walk_t  *walk = tree->data;

    walk->rc = ngx_http_tidewire_walk_entry(walk, path, tree->size, 0);
    return walk->rc == NGX_OK ? NGX_OK : NGX_ABORT;
}


static ngx_int_t
ngx_http_tidewire_walk_special(ngx_tree_ctx_t *tree, ngx_str_t *path)
{
    ngx_http_tidewire_walk_t  *walk = tree->data;

    walk->rc = ngx_http_tidewire_walk_entry(walk, path, -1, 0);
    return walk->rc == NGX_OK ? NGX_OK : NGX_ABORT;
}


static ngx_int_t
ngx_http_tidewire_walk_directory(ngx_tree_ctx_t *tree, ngx_str_t *path)
{
    ngx_http_tidewire_walk_t  *walk = tree->data;

    walk->rc = ngx_http_tidewire_walk_entry(walk, path, -1, 1);
    return walk->rc == NGX_OK ? NGX_OK : NGX_ABORT;
}


static ngx_int_t
ngx_http_tidewire_walk_left(ngx_tree_ctx_t *tree, ngx_str_t *path)
{
    return NGX_OK;
}


/* NGX_OK also if nothing is there. */
static ngx_int_t
ngx_http_tidewire_walk(ngx_http_tidewire_walk_t *walk)
{
    ngx_int_t       rc;
    struct stat     fi;
    ngx_tree_ctx_t  tree;

    if (lstat((char *) walk->from.data, &fi) != 0 || !S_ISDIR(fi.st_mode)) {
        return NGX_OK;
    }

    rc = ngx_http_tidewire_walk_entry(walk, &walk->from, -1, 1);
    if (rc != NGX_OK) {
        return rc;
    }

    ngx_memzero(&tree, sizeof(ngx_tree_ctx_t));
    tree.file_handler = ngx_http_tidewire_walk_file;
    tree.pre_tree_handler = ngx_http_tidewire_walk_directory;
    tree.post_tree_handler = ngx_http_tidewire_walk_left;
    tree.spec_handler = ngx_http_tidewire_walk_special;
    tree.data = walk;
    tree.log = walk->request->connection->log;
    walk->rc = NGX_OK;

    rc = ngx_walk_tree(&tree, &walk->from);

    /* What could not be read would be changed without a word. */
    return walk->rc != NGX_OK ? walk->rc : rc != NGX_OK ? NGX_ERROR : NGX_OK;
}


/* DELETE, COPY and MOVE of a collection: each object in it, and, of a destination that is overwritten, each that is not there
 * afterwards. */
static ngx_int_t
ngx_http_tidewire_plan_tree(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx, ngx_str_t *path, ngx_str_t *to_uri,
    ngx_str_t *to)
{
    ngx_int_t                      rc;
    ngx_str_t                      file;
    struct stat                    fi;
    ngx_http_tidewire_walk_t       walk;
    ngx_http_tidewire_loc_conf_t  *conf;

    conf = ngx_http_get_module_loc_conf(r, ngx_http_tidewire_module);

    ngx_memzero(&walk, sizeof(ngx_http_tidewire_walk_t));
    walk.request = r;
    walk.ctx = ctx;
    walk.max = conf->collection_max;
    walk.from = *path;
    walk.from_uri = r->uri;

    if (to) {
        walk.to = *to;
        walk.to_uri = *to_uri;
    }

    rc = ngx_http_tidewire_walk(&walk);
    if (rc != NGX_OK || to == NULL || lstat((char *) path->data, &fi) != 0) {
        return rc;
    }

    if (lstat((char *) to->data, &fi) == 0 && !S_ISDIR(fi.st_mode)) {
        /* A file whose place the collection takes. */
        file = *to_uri;
        file.len--;
        return ngx_http_tidewire_plan_removal(r, ctx, &file, to->data, NULL);
    }

    walk.from = *to;
    walk.from_uri = *to_uri;
    walk.to = *path;
    walk.to_uri = r->uri;
    walk.replaced = 1;

    return ngx_http_tidewire_walk(&walk);
}


ngx_uint_t
ngx_http_tidewire_wanted(ngx_http_request_t *r, const tidewire_engine_t *engine)
{
    ngx_str_t         bucket, key;
    tidewire_event_t  event = TIDEWIRE_EVENT_INIT;

    switch (r->method) {

    case NGX_HTTP_PUT:
        event.event_type = TIDEWIRE_EVENT_OBJECT_CREATED_PUT;
        break;

    case NGX_HTTP_DELETE:
        if (r->uri.data[r->uri.len - 1] == '/') {
            return 1;
        }
        event.event_type = TIDEWIRE_EVENT_OBJECT_REMOVED_DELETE;
        break;

    default:
        return 1;
    }

    if (ngx_http_tidewire_name(r, &r->uri, &bucket, &key) != NGX_OK) {
        return 1;
    }

    event.bucket = ngx_http_tidewire_bytes(&bucket);

    return tidewire_is_interested(engine, &event);
}


ngx_int_t
ngx_http_tidewire_plan(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx)
{
    ngx_int_t                    rc;
    ngx_str_t                    bucket, key, to_uri, path, to;
    ngx_uint_t                   collection;
    struct stat                  fi;
    ngx_http_tidewire_change_t  *change;

    if (ngx_array_init(&ctx->changes, r->pool, 1, sizeof(ngx_http_tidewire_change_t)) != NGX_OK) {
        return NGX_ERROR;
    }

    collection = r->uri.data[r->uri.len - 1] == '/';

    switch (r->method) {

    case NGX_HTTP_PUT:
    case NGX_HTTP_MKCOL:
    case NGX_HTTP_LOCK:
        if (collection != (r->method == NGX_HTTP_MKCOL)) {
            return NGX_DECLINED;
        }

        rc = ngx_http_tidewire_new_name(r, &r->uri, &bucket, &key);
        if (rc != NGX_OK) {
            return rc;
        }

        /* LOCK makes an empty file of a name that nothing has. */
        if (r->method == NGX_HTTP_LOCK
            && (ngx_http_tidewire_path(r, &r->uri, &path) == NULL || lstat((char *) path.data, &fi) == 0))
        {
            return NGX_DECLINED;
        }

        change = ngx_http_tidewire_change(ctx, TIDEWIRE_EVENT_OBJECT_CREATED_PUT, &bucket, &key);
        return change ? NGX_OK : NGX_ERROR;

    case NGX_HTTP_DELETE:
        if (!collection) {
            return ngx_http_tidewire_plan_removal(r, ctx, &r->uri, NULL, NULL);
        }

        if (ngx_http_tidewire_path(r, &r->uri, &path) == NULL) {
            return NGX_DECLINED;
        }

        return ngx_http_tidewire_plan_tree(r, ctx, &path, NULL, NULL);

    default: /* COPY, MOVE */
        break;
    }

    if (ngx_http_tidewire_destination(r, &to_uri) != NGX_OK
        || (to_uri.data[to_uri.len - 1] == '/') != collection
        || ngx_http_tidewire_path(r, &r->uri, &path) == NULL
        || ngx_http_tidewire_path(r, &to_uri, &to) == NULL)
    {
        return NGX_DECLINED;
    }

    if (collection) {
        return ngx_http_tidewire_plan_tree(r, ctx, &path, &to_uri, &to);
    }

    if (lstat((char *) path.data, &fi) != 0 || S_ISDIR(fi.st_mode)) {
        return NGX_DECLINED;
    }

    rc = ngx_http_tidewire_plan_copy(r, ctx, &to_uri, to.data, fi.st_size, &r->uri);

    if (rc == NGX_OK && r->method == NGX_HTTP_MOVE) {
        rc = ngx_http_tidewire_plan_removal(r, ctx, &r->uri, path.data, &to_uri);
    }

    return rc;
}


/* --- events */

/* A text of the request as an event may have it: UTF-8, and not too long; otherwise nothing. */
static tidewire_bytes_t
ngx_http_tidewire_text(const ngx_str_t *text)
{
    u_char  *p, *last;

    if (text->len > NGX_HTTP_TIDEWIRE_TEXT_MAX) {
        return tidewire_bytes(NULL, 0);
    }

    last = text->data + text->len;

    for (p = text->data; p < last; /* void */) {
        if (*p < 0x80) {
            p++;
        } else if (ngx_utf8_decode(&p, last - p) > 0x10ffff) {
            return tidewire_bytes(NULL, 0);
        }
    }

    return ngx_http_tidewire_bytes(text);
}


static tidewire_bytes_t
ngx_http_tidewire_value(ngx_http_request_t *r, ngx_http_complex_value_t *value)
{
    ngx_str_t  text;

    if (value == NULL || ngx_http_complex_value(r, value, &text) != NGX_OK) {
        return tidewire_bytes(NULL, 0);
    }

    return ngx_http_tidewire_text(&text);
}


ngx_int_t
ngx_http_tidewire_reserve(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx, const tidewire_engine_t *engine)
{
    ngx_uint_t                      i, n, wanted;
    tidewire_event_t                one = TIDEWIRE_EVENT_INIT, *events;
    tidewire_error_t               *err;
    tidewire_result_t               result;
    tidewire_reservation_t        **reservations, *reservation;
    ngx_http_tidewire_change_t     *change;
    ngx_http_tidewire_loc_conf_t   *conf;

    conf = ngx_http_get_module_loc_conf(r, ngx_http_tidewire_module);
    change = ctx->changes.elts;
    n = ctx->changes.nelts;

    one.requester = ngx_http_tidewire_value(r, conf->requester);
    one.request_id = ngx_http_tidewire_value(r, conf->request_id);
    one.source_ip = ngx_http_tidewire_bytes(&r->connection->addr_text);
    one.method = ngx_http_tidewire_bytes(&r->method_name);

    if (r->headers_in.user_agent) {
        one.user_agent = ngx_http_tidewire_text(&r->headers_in.user_agent->value);
    }

    if (r->method == NGX_HTTP_PUT && r->headers_in.content_type) {
        one.content_type = ngx_http_tidewire_text(&r->headers_in.content_type->value);
    }

    events = &one;
    reservations = &reservation;

    if (n > 1) {
        events = ngx_palloc(r->pool, n * sizeof(tidewire_event_t));
        reservations = ngx_palloc(r->pool, n * sizeof(tidewire_reservation_t *));
        if (events == NULL || reservations == NULL) {
            return NGX_ERROR;
        }
    }

    for (i = 0; i < n; i++) {
        if (n > 1) {
            events[i] = one;
        }

        events[i].event_type = change[i].type;
        events[i].bucket = ngx_http_tidewire_bytes(&change[i].bucket);
        events[i].key = ngx_http_tidewire_bytes(&change[i].key);
        events[i].data = ngx_http_tidewire_bytes(&change[i].data);
    }

    if (n > 1) {
        result = tidewire_reserve_batch(engine, events, n, NULL, reservations, &err);
    } else {
        result = tidewire_reserve(engine, events, NULL, reservations, &err);
    }

    if (result == TIDEWIRE_OK) {
        for (i = 0, wanted = 0; i < n; i++) {
            change[i].reservation = reservations[i];
            wanted |= reservations[i] != NULL;
        }

        return wanted ? NGX_OK : NGX_DECLINED;
    }

    if (result == TIDEWIRE_DISCONNECTED) {
        tidewire_error_free(err);
        return NGX_AGAIN;
    }

    ngx_http_tidewire_log_error(r->connection->log, NGX_LOG_ERR,
                                conf->pass ? "done without telling of it" : "refused", err);

    return result == TIDEWIRE_INVALID_EVENT ? NGX_HTTP_BAD_REQUEST : NGX_BUSY;
}


/* --- what has happened */

/* Whether a PUT has put its file in place, and how that is. */
static ngx_uint_t
ngx_http_tidewire_put_happened(ngx_http_request_t *r, ngx_uint_t success, struct stat *fi)
{
    ngx_str_t    path;
    struct stat  at;

    /* The file of the body has become the object, unless that is on another file system. */
    if (r->request_body == NULL || r->request_body->temp_file == NULL
        || fstat(r->request_body->temp_file->file.fd, fi) != 0)
    {
        fi->st_nlink = 0;
    }

    if (success && fi->st_nlink) {
        return 1;
    }

    if ((!success && fi->st_nlink == 0) || ngx_http_tidewire_path(r, &r->uri, &path) == NULL
        || lstat((char *) path.data, &at) != 0)
    {
        return 0;
    }

    if (!success) {
        /* nginx may fail after it has moved the file. */
        return at.st_dev == fi->st_dev && at.st_ino == fi->st_ino;
    }

    *fi = at;
    return 1;
}


/* Fills in `fi` for what was created. */
static ngx_uint_t
ngx_http_tidewire_happened(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx, ngx_http_tidewire_change_t *change,
    ngx_uint_t success, struct stat *fi)
{
    ngx_memzero(fi, sizeof(struct stat));

    if (r->method == NGX_HTTP_PUT) {
        return ngx_http_tidewire_put_happened(r, success, fi);
    }

    if (change->path == NULL) {
        return success;
    }

    if (lstat((char *) change->path, fi) != 0) {
        return change->removed && (ngx_errno == NGX_ENOENT || ngx_errno == NGX_ENOTDIR);
    }

    if (change->removed || (ngx_uint_t) S_ISDIR(fi->st_mode) != change->collection) {
        return 0;
    }

    /* nginx goes on copying a collection when a file of it fails. */
    if (change->size >= 0 && fi->st_size != change->size) {
        return 0;
    }

    return success || !change->existed || fi->st_ino != change->ino || fi->st_ctim.tv_sec != change->ctime.tv_sec
           || fi->st_ctim.tv_nsec != change->ctime.tv_nsec;
}


void
ngx_http_tidewire_commit(ngx_http_request_t *r, ngx_http_tidewire_ctx_t *ctx, ngx_int_t rc, ngx_uint_t blocking)
{
    u_char                        *p;
    u_char                         etag[2 * NGX_TIME_T_LEN + NGX_OFF_T_LEN + 3];
    ngx_uint_t                     i, success;
    struct stat                    fi;
    tidewire_error_t              *err;
    tidewire_commit_t              fields;
    tidewire_result_t              result;
    ngx_http_tidewire_change_t    *change;
    tidewire_publish_options_t     options = TIDEWIRE_PUBLISH_OPTIONS_INIT;
    ngx_http_tidewire_loc_conf_t  *conf;

    conf = ngx_http_get_module_loc_conf(r, ngx_http_tidewire_module);
    options.ack = conf->ack;
    options.ack_timeout_ms = conf->ack_timeout;
    success = rc >= NGX_HTTP_OK && rc < NGX_HTTP_SPECIAL_RESPONSE;
    ctx->committed = 1;
    change = ctx->changes.elts;

    for (i = 0; i < ctx->changes.nelts; i++) {
        if (change[i].reservation == NULL) {
            continue;
        }

        if (!ngx_http_tidewire_happened(r, ctx, &change[i], success, &fi)) {
            tidewire_reservation_free(&change[i].reservation);
            continue;
        }

        fields = (tidewire_commit_t) TIDEWIRE_COMMIT_INIT;

        if (!change[i].removed && !change[i].collection) {
            fields.has_size = 1;
            fields.size = fi.st_size;

            if (fi.st_nlink) {
                p = ngx_sprintf(etag, "%xT-%xO", fi.st_mtime, fi.st_size);
                fields.etag = tidewire_bytes(etag, p - etag);
            }
        }

        if (r->method == NGX_HTTP_PUT && success) {
            /* nginx answers 201 or 204. */
            fields.data = tidewire_str(rc == NGX_HTTP_CREATED ? "{\"overwritten\":false}" : "{\"overwritten\":true}");
        }

        if (conf->ack == TIDEWIRE_ACK_MEMORY || blocking) {
            result = tidewire_commit(change[i].reservation, &fields, &options, &err);

        } else if (ctx->wait == NULL && ngx_http_tidewire_wait(r, ctx) == NULL) {
            /* Without memory for it, it is told all the same. */
            options.ack = TIDEWIRE_ACK_MEMORY;
            result = tidewire_commit(change[i].reservation, &fields, &options, &err);
            ctx->failed = 1;

        } else {
            result = ngx_http_tidewire_submit(ctx->wait, change[i].reservation, &fields, &options, &err);
        }

        if (result != TIDEWIRE_OK) {
            ctx->failed = 1;
            ngx_http_tidewire_log_error(r->connection->log, NGX_LOG_ALERT, "done, but not told", err);
        }

        tidewire_reservation_free(&change[i].reservation);
    }

    ngx_http_tidewire_wait_end(ctx);
}


void
ngx_http_tidewire_abort(ngx_http_tidewire_ctx_t *ctx)
{
    ngx_uint_t                   i;
    ngx_http_tidewire_change_t  *change;

    change = ctx->changes.elts;

    for (i = 0; i < ctx->changes.nelts; i++) {
        tidewire_reservation_free(&change[i].reservation);
    }
}
