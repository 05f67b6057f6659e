/* cache/behind.c: write-behind. The run copies a record into a bounded queue and goes on; a thread digests,
 * compresses and stores batches, one transaction each, and adds up hits in between. Nothing here makes the
 * run wait for I/O (I10).
 */
#include "cache/cache_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct item {
    struct item *next, **at; /* at: what points to it */
    struct cache_key key;
    size_t size;
    uint32_t plain;
    uint8_t raw[]; /* not sealed yet */
};

struct touch {
    struct cache_key key;
    uint64_t hits; /* 0: free */
};

struct cache_queue {
    struct cache *cache;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct item *head, **tail;
    struct item *recent[CACHE_RECENT_SLOTS]; /* by key: of those that wait */
    size_t count, bytes; /* waiting, the batch being stored included: I10, I11 */
    unsigned touched;    /* slots of touch[] in use */
    bool stop, watch;    /* watch: a shared read transaction is open */
    uint64_t queued, stored, replaced, dropped;
    struct cache_error error; /* the first one */
    struct touch touch[CACHE_TOUCH_SLOTS];
    struct touch flush[CACHE_TOUCH_SLOTS]; /* the thread's own copy */
};

/* ---- the run's side ---- */

static bool same_key(const struct cache_key *a, const struct cache_key *b)
{
    return a->hash_lo == b->hash_lo && a->hash_hi == b->hash_hi && a->mode == b->mode && a->pad == b->pad &&
           a->fingerprint == b->fingerprint;
}

/* Under the lock. A full table loses hits, which only weigh in gc. */
static void add_hits(struct cache_queue *q, const struct cache_key *k, uint64_t hits)
{
    if (q->touched >= CACHE_TOUCH_SLOTS * 3 / 4)
        return;
    size_t i = (k->hash_lo ^ k->hash_hi ^ (uint64_t)k->mode * 0x9E3779B97F4A7C15u) & (CACHE_TOUCH_SLOTS - 1);
    while (q->touch[i].hits && !same_key(&q->touch[i].key, k))
        i = (i + 1) & (CACHE_TOUCH_SLOTS - 1);
    if (!q->touch[i].hits) {
        q->touch[i].key = *k;
        q->touched++;
    }
    q->touch[i].hits += hits;
}

void cache_touch(struct cache *c, const struct cache_key *k)
{
    struct cache_queue *q = c->queue;
    if (!q)
        return;
    pthread_mutex_lock(&q->lock);
    add_hits(q, k, 1);
    if (q->touched == 1 || q->touched == CACHE_TOUCH_SLOTS / 2)
        pthread_cond_signal(&q->wake);
    pthread_mutex_unlock(&q->lock);
}

/* Room is taken before the copy is made, so that the copying needs no lock. */
static bool take_room(struct cache_queue *q, size_t size)
{
    pthread_mutex_lock(&q->lock);
    bool room = size && q->count < CACHE_QUEUE_RECORDS && q->bytes + size <= CACHE_QUEUE_BYTES && !q->stop;
    q->queued++;
    if (room) {
        q->count++;
        q->bytes += size;
    } else {
        q->dropped++;
    }
    pthread_mutex_unlock(&q->lock);
    return room;
}

static struct item **slot_of(struct cache_queue *q, const struct cache_key *k)
{
    return &q->recent[(k->hash_lo ^ k->mode) % CACHE_RECENT_SLOTS];
}

/* Under the lock. A page that is made again soon, because control reached what was not known of it, is stored once. */
static void append(struct cache_queue *q, struct item *it)
{
    struct item **slot = slot_of(q, &it->key), *old = *slot;
    bool replaces = old && same_key(&old->key, &it->key);
    it->at = replaces ? old->at : q->tail;
    it->next = replaces ? old->next : NULL;
    *it->at = *slot = it;
    if (it->next)
        it->next->at = &it->next;
    else
        q->tail = &it->next;
    if (!replaces)
        return;
    q->count--;
    q->bytes -= old->size;
    q->replaced++;
    free(old);
}

void cache_put_later(struct cache *c, const struct cache_key *k, const struct cache_record *r)
{
    struct cache_queue *q = c->queue;
    size_t size = cache_raw_size(r);
    if (!q || !take_room(q, size))
        return;
    struct item *it = malloc(sizeof *it + size);
    if (it) {
        it->key = *k;
        it->size = size;
        it->plain = r->plain;
        cache_raw_fill(it->raw, k, r);
    }
    pthread_mutex_lock(&q->lock);
    if (it) {
        append(q, it);
        pthread_cond_signal(&q->wake);
    } else {
        q->count--;
        q->bytes -= size;
        q->dropped++;
    }
    pthread_mutex_unlock(&q->lock);
}

/* ---- the thread's side ---- */

static void wait_ms(struct cache_queue *q, int ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_nsec += (long)ms * 1000000;
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    while (!q->stop && q->count < CACHE_BATCH_RECORDS &&
           pthread_cond_timedwait(&q->wake, &q->lock, &t) != ETIMEDOUT)
        ;
}

/* Under the lock: the next records, at most a batch. */
static struct item *take_batch(struct cache_queue *q)
{
    struct item *first = q->head, *last = first;
    if (!first)
        return NULL;
    for (unsigned n = 1; n < CACHE_BATCH_RECORDS && last->next; n++)
        last = last->next;
    q->head = last->next;
    if (q->head)
        q->head->at = &q->head;
    else
        q->tail = &q->head;
    last->next = NULL;
    for (const struct item *it = first; it; it = it->next) {
        struct item **slot = slot_of(q, &it->key);
        *slot = *slot == it ? NULL : *slot;
    }
    return first;
}

/* Under the lock: the hits so far, into flush[], compacted. */
static unsigned take_hits(struct cache_queue *q)
{
    unsigned n = 0;
    if (!q->touched)
        return 0;
    for (unsigned i = 0; i < CACHE_TOUCH_SLOTS; i++)
        if (q->touch[i].hits)
            q->flush[n++] = q->touch[i];
    memset(q->touch, 0, sizeof q->touch);
    q->touched = 0;
    return n;
}

static int store_hits(struct cache *c, const struct touch *t, unsigned n)
{
    int64_t now = (int64_t)time(NULL);
    int rc = SQLITE_OK;
    for (unsigned i = 0; i < n && rc == SQLITE_OK; i++) {
        sqlite3_stmt *s = cache_stmt(&c->writer, CACHE_SQL_TOUCH);
        if (!s)
            return sqlite3_extended_errcode(c->writer.db);
        rc = cache_bind_key(s, 1, &t[i].key);
        rc = rc ? rc : sqlite3_bind_int64(s, 2, (int64_t)t[i].hits);
        rc = rc ? rc : sqlite3_bind_int64(s, 3, now);
        rc = rc ? rc : cache_step_done(s);
    }
    return rc;
}

/* One transaction. The caller's own transaction, if one is open, is waited for: its fate is not ours. */
static enum cache_code store_batch(struct cache *c, const struct item *batch, const struct touch *hits,
                                   unsigned n, struct cache_error *err)
{
    bool own, added;
    pthread_mutex_lock(&c->writer.lock);
    while (atomic_load(&c->in_txn))
        pthread_cond_wait(&c->txn_done, &c->writer.lock);
    enum cache_code code = cache_write_begin(c, &own, err);
    for (const struct item *it = batch; it && code == CACHE_OK; it = it->next)
        code = cache_store(c, &it->key, it->raw, it->size, it->plain, &added, err);
    if (code == CACHE_OK) {
        int rc = store_hits(c, hits, n);
        if (rc != SQLITE_OK)
            code = cache_sql_fail(c, &c->writer, rc, "counting hits", err);
    }
    code = cache_write_end(c, own, code, err);
    pthread_mutex_unlock(&c->writer.lock);
    return code;
}

/* Under the lock: the batch is done, well or not. */
static void settle(struct cache_queue *q, struct item *batch, enum cache_code code,
                   const struct cache_error *err)
{
    if (code != CACHE_OK && q->error.code == CACHE_OK)
        q->error = *err;
    while (batch) {
        struct item *next = batch->next;
        q->count--;
        q->bytes -= batch->size;
        *(code == CACHE_OK ? &q->stored : &q->dropped) += 1;
        free(batch);
        batch = next;
    }
}

/* Under the lock. Also ends a shared read transaction that nobody renews: until then it ticks. */
static void wait_for_work(struct cache_queue *q)
{
    if (!q->watch) {
        pthread_cond_wait(&q->wake, &q->lock);
        return;
    }
    wait_ms(q, CACHE_SNAPSHOT_MS);
    pthread_mutex_unlock(&q->lock); /* reader.lock comes before it */
    cache_snapshot_expire(q->cache);
    pthread_mutex_lock(&q->lock);
    q->watch = atomic_load(&q->cache->snapshot);
}

static void *behind_main(void *arg)
{
    struct cache_queue *q = arg;
    pthread_mutex_lock(&q->lock);
    for (;;) {
        while (!q->stop && !q->head && !q->touched)
            wait_for_work(q);
        if (!q->head && !q->touched)
            break; /* stop, and drained */
        wait_ms(q, q->head ? CACHE_BATCH_DELAY_MS : 10 * CACHE_BATCH_DELAY_MS);
        struct item *batch = take_batch(q);
        unsigned hits = take_hits(q);
        pthread_mutex_unlock(&q->lock);
        for (struct item *it = batch; it; it = it->next)
            cache_raw_seal(it->raw, it->size);
        struct cache_error err = {0};
        enum cache_code code = store_batch(q->cache, batch, q->flush, hits, &err);
        pthread_mutex_lock(&q->lock);
        /* Held by another process for longer than the timeout: while the run goes on there is time to try
         * again. */
        while (code == CACHE_ERR_BUSY && !q->stop) {
            pthread_mutex_unlock(&q->lock);
            code = store_batch(q->cache, batch, q->flush, hits, &err);
            pthread_mutex_lock(&q->lock);
        }
        settle(q, batch, code, &err);
    }
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

/* ---- start and stop ---- */

enum cache_code cache_queue_start(struct cache *c, struct cache_error *err)
{
    struct cache_queue *q = calloc(1, sizeof *q);
    if (!q)
        return cache_fail(err, CACHE_ERR_MEMORY, "no memory for the queue of cache file %.200s",
                          c->file.path);
    q->cache = c;
    q->tail = &q->head;
    pthread_mutex_init(&q->lock, NULL);
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&q->wake, &a);
    pthread_condattr_destroy(&a);
    /* The process's signals are the run's (timers, kicks): none may land on this thread. */
    sigset_t all, old;
    sigfillset(&all);
    sigdelset(&all, SIGSYS); /* by which a process that gave up system calls is told of one it makes all the same */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&q->thread, NULL, behind_main, q);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed) {
        free(q);
        return cache_fail(err, CACHE_ERR_MEMORY, "no thread to write cache file %.200s: %s", c->file.path,
                          strerror(failed));
    }
    c->queue = q;
    return CACHE_OK;
}

enum cache_code cache_queue_stop(struct cache *c, struct cache_error *err)
{
    struct cache_queue *q = c->queue;
    if (!q)
        return CACHE_OK;
    pthread_mutex_lock(&q->lock);
    q->stop = true;
    pthread_cond_signal(&q->wake);
    pthread_mutex_unlock(&q->lock);
    pthread_join(q->thread, NULL);
    enum cache_code code = q->error.code;
    if (code != CACHE_OK && err)
        *err = q->error;
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->wake);
    free(q);
    c->queue = NULL;
    return code;
}

void cache_queue_watch(struct cache *c)
{
    struct cache_queue *q = c->queue;
    pthread_mutex_lock(&q->lock);
    if (!q->watch)
        pthread_cond_signal(&q->wake);
    q->watch = true;
    pthread_mutex_unlock(&q->lock);
}

void cache_queue_stats(struct cache *c, struct cache_stats *out)
{
    struct cache_queue *q = c->queue;
    if (!q)
        return;
    pthread_mutex_lock(&q->lock);
    out->queued = q->queued;
    out->stored = q->stored;
    out->replaced = q->replaced;
    out->dropped = q->dropped;
    pthread_mutex_unlock(&q->lock);
}
