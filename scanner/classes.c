/* scanner/classes.c: what scan_class.def says about each class. */
#include "scanner/scan.h"

struct class_row {
    const char *name, *text;
    bool sensitive;
};

static const struct class_row rows[SCAN_CLASS_COUNT] = {
#define SCAN_CLASS(id, name, sensitive, text) [SCAN_CLASS_##id] = {name, text, sensitive},
#include "scanner/scan_class.def"
#undef SCAN_CLASS
};
static const struct class_row unknown = {"?", "not a class", false};

static const struct class_row *row_of(enum scan_class c)
{
    return (unsigned)c < SCAN_CLASS_COUNT ? &rows[c] : &unknown;
}

const char *scan_class_name(enum scan_class c)
{
    return row_of(c)->name;
}

const char *scan_class_text(enum scan_class c)
{
    return row_of(c)->text;
}

bool scan_class_sensitive(enum scan_class c)
{
    return row_of(c)->sensitive;
}
