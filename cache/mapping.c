/* cache/mapping.c: the reader's mapping of the file, kept while the file keeps its size.
 *
 * Whenever a commit has been made since its last read transaction, SQLite takes its mapping of the file away and makes it anew, because the file
 * might have become shorter. Then every page of it is a host's page fault again, and the hits that a run counts are such commits: half of the
 * faults of look-ups in a kernel's boot, 800 in 2,000. The mapping itself shows what is written to the file at any time, so it is
 * given up only if the size is another.
 *
 * Its pages count as the process's memory, though they are the host's page cache, and most are not used again: they are let go when look-ups pause, as
 * behind a boot, and when there are very many.
 */
#include "cache/cache_internal.h"

#include <stdlib.h>
#include <sys/mman.h>

/* Pages handed out until then, 7 in a look-up, of which 3 are new. */
#define LET_GO_IDLE 4096u  /* when look-ups pause */
#define LET_GO_BUSY 32768u /* when they do not */

/* The methods of the reader's file, which SQLite reaches it through. */
struct cache_mapping {
    sqlite3_io_methods methods; /* first: the file's pMethods point at it */
    const sqlite3_io_methods *below;
    sqlite3_int64 size; /* of the file when it was last seen that nothing is mapped; -1: not known */
    bool mapped;
    unsigned handed_out;
    uint8_t *base;     /* where it is mapped */
    sqlite3_int64 top; /* as far as pages of it have been handed out: all in front is mapped */
};

static struct cache_mapping *mapping_of(sqlite3_file *f)
{
    return (struct cache_mapping *)(uintptr_t)f->pMethods;
}

static void let_go(struct cache_mapping *x)
{
    x->handed_out = 0;
    madvise(x->base, (size_t)x->top, MADV_DONTNEED); /* of a file's mapping: a later access finds it again */
}

static void count_page(struct cache_mapping *x, uint8_t *base, sqlite3_int64 end)
{
    if (base != x->base)
        x->top = 0;
    x->base = base;
    x->top = end > x->top ? end : x->top;
    if (++x->handed_out >= LET_GO_BUSY)
        let_go(x);
}

static int fetch(sqlite3_file *f, sqlite3_int64 at, int n, void **page)
{
    struct cache_mapping *x = mapping_of(f);
    if (!x->mapped && x->below->xFileSize(f, &x->size) != SQLITE_OK)
        x->size = -1;
    x->mapped = true;
    int rc = x->below->xFetch(f, at, n, page);
    if (rc == SQLITE_OK && *page)
        count_page(x, (uint8_t *)*page - at, at + n);
    return rc;
}

/* page NULL: all of the mapping. */
static int unfetch(sqlite3_file *f, sqlite3_int64 at, void *page)
{
    struct cache_mapping *x = mapping_of(f);
    sqlite3_int64 size;
    if (!page) {
        if (x->mapped && x->below->xFileSize(f, &size) == SQLITE_OK && size == x->size)
            return SQLITE_OK;
        x->mapped = false;
        x->top = 0;
    }
    return x->below->xUnfetch(f, at, page);
}

void cache_mapping_keep(struct cache_conn *n)
{
    sqlite3_file *f = NULL;
    if (sqlite3_file_control(n->db, "main", SQLITE_FCNTL_FILE_POINTER, &f) != SQLITE_OK || !f || !f->pMethods ||
        f->pMethods->iVersion < 3 || !f->pMethods->xFetch || !f->pMethods->xUnfetch)
        return;
    struct cache_mapping *x = n->mapping = calloc(1, sizeof *x);
    if (!x)
        return;
    x->below = f->pMethods;
    x->methods = *f->pMethods;
    x->methods.xFetch = fetch;
    x->methods.xUnfetch = unfetch;
    f->pMethods = &x->methods;
}

void cache_mapping_idle(struct cache_conn *n)
{
    if (n->mapping && n->mapping->top && n->mapping->handed_out >= LET_GO_IDLE)
        let_go(n->mapping);
}

void cache_mapping_free(struct cache_conn *n)
{
    free(n->mapping);
    n->mapping = NULL;
}
