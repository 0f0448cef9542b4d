/* Decoder of record values into packed columns: the compiled equal of events/decode.py.
 *
 * Answers only where it is certain to equal the Python decoder, which alone gives reasons: at any other
 * value it stops, and its caller decodes that value in Python. Certain is JSON by RFC 8259 in UTF-8 by
 * table 3-7 of the Unicode standard, all of it checked, the skipped fields too; with texts of at least
 * one character, an RFC 3339 timestamp in the range of ClickHouse's DateTime, and properties that are an
 * object, null or absent.
 *
 * The bytes of a bytes object are followed by a zero byte. It is invalid in all places of a JSON text, so
 * that a function that checks each byte before it passes on cannot run over the end. Such a function
 * returns the byte after what it skipped, or NULL.
 *
 * No state, no callbacks: the lock of the interpreter is held from the first value to the last. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#include "_varint.h"

typedef const unsigned char *Bytes;

/* Containers within one another, the event included. The Python decoder accepts more. */
#define MAX_DEPTH 64

/* Text in a value: the bytes between its quotes. */
typedef struct {
    Bytes begin;
    Bytes end;
    int is_escaped;
} Text;

/* Columns, in the order of event.Row; the fields of an event have the same numbers. */
enum { TIMESTAMP, APP_ID, EVENT_NAME, USER_ID, PROPERTIES, COLUMNS, UNKNOWN = COLUMNS };

/* --- JSON: RFC 8259 ------------------------------------------------------------------------------ */

static inline Bytes
skip_space(Bytes at)
{
    while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t') {
        at++;
    }
    return at;
}

#define EACH_BYTE(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Skip ASCII without quote, backslash and control characters, eight bytes at a time: of those, the high
 * bit of a byte remains clear in each of the four terms. A borrow can set it wrongly only after a byte
 * that stops. */
static inline Bytes
skip_plain(Bytes at, Bytes end)
{
    while (end - at >= 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        uint64_t stops = (word | (word - EACH_BYTE(0x20)) | ((word ^ EACH_BYTE('"')) - EACH_BYTE(1)) |
                          ((word ^ EACH_BYTE('\\')) - EACH_BYTE(1))) &
                         EACH_BYTE(0x80);
        if (stops) {
#if PY_LITTLE_ENDIAN && defined(__GNUC__)
            return at + (__builtin_ctzll(stops) >> 3);
#else
            break;
#endif
        }
        at += 8;
    }
    while (*at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\') {
        at++;
    }
    return at;
}

static inline int
is_between(unsigned char byte, unsigned char low, unsigned char high)
{
    return low <= byte && byte <= high;
}

/* Skip one character of two to four bytes: table 3-7, "Well-Formed UTF-8 Byte Sequences". Only the second
 * byte's range depends on the first. */
static Bytes
skip_multibyte(Bytes at)
{
    unsigned char first = *at++;
    unsigned char low = 0x80, high = 0xBF;
    int more;
    if (is_between(first, 0xC2, 0xDF)) {
        more = 1;
    } else if (is_between(first, 0xE0, 0xEF)) {
        more = 2;
        low = first == 0xE0 ? 0xA0 : low;
        high = first == 0xED ? 0x9F : high;
    } else if (is_between(first, 0xF0, 0xF4)) {
        more = 3;
        low = first == 0xF0 ? 0x90 : low;
        high = first == 0xF4 ? 0x8F : high;
    } else {
        return NULL;
    }
    if (!is_between(*at++, low, high)) {
        return NULL;
    }
    while (--more > 0) {
        if (!is_between(*at++, 0x80, 0xBF)) {
            return NULL;
        }
    }
    return at;
}

/* Read four hexadecimal digits; return -1 if they are not. */
static int32_t
hex_unit(Bytes at)
{
    int32_t unit = 0;
    for (int digit = 0; digit < 4; digit++, at++) {
        unit <<= 4;
        if (is_between(*at, '0', '9')) {
            unit |= *at - '0';
        } else if (is_between(*at | 0x20, 'a', 'f')) {
            unit |= (*at | 0x20) - 'a' + 10;
        } else {
            return -1;
        }
    }
    return unit;
}

/* Skip an escape after its backslash, and set its character: RFC 8259, section 7. Half of a surrogate pair
 * is not a character. */
static Bytes
skip_escape(Bytes at, uint32_t *character)
{
    switch (*at++) {
    case '"': *character = '"'; return at;
    case '\\': *character = '\\'; return at;
    case '/': *character = '/'; return at;
    case 'b': *character = '\b'; return at;
    case 'f': *character = '\f'; return at;
    case 'n': *character = '\n'; return at;
    case 'r': *character = '\r'; return at;
    case 't': *character = '\t'; return at;
    case 'u': break;
    default: return NULL;
    }
    int32_t unit = hex_unit(at);
    if (unit < 0 || (unit & 0xFC00) == 0xDC00) {
        return NULL;
    }
    at += 4;
    *character = (uint32_t)unit;
    if ((unit & 0xFC00) == 0xD800) {
        if (at[0] != '\\' || at[1] != 'u') {
            return NULL;
        }
        int32_t low = hex_unit(at + 2);
        if (low < 0 || (low & 0xFC00) != 0xDC00) {
            return NULL;
        }
        at += 6;
        *character = 0x10000 + (((uint32_t)unit & 0x3FF) << 10) + ((uint32_t)low & 0x3FF);
    }
    return at;
}

/* Skip a string after its opening quote. */
static inline Bytes
skip_string(Bytes at, Bytes end, Text *text)
{
    uint32_t character;
    text->begin = at;
    text->is_escaped = 0;
    while (at != NULL) {
        at = skip_plain(at, end);
        if (*at == '"') {
            text->end = at;
            return at + 1;
        }
        if (*at == '\\') {
            text->is_escaped = 1;
            at = skip_escape(at + 1, &character);
        } else {
            at = *at >= 0x80 ? skip_multibyte(at) : NULL;
        }
    }
    return NULL;
}

static inline Bytes
skip_digits(Bytes at)
{
    if (!is_between(*at, '0', '9')) {
        return NULL;
    }
    do {
        at++;
    } while (is_between(*at, '0', '9'));
    return at;
}

/* Skip a number: section 6. */
static Bytes
skip_number(Bytes at)
{
    at += *at == '-';
    at = *at == '0' ? at + 1 : skip_digits(at);
    if (at != NULL && *at == '.') {
        at = skip_digits(at + 1);
    }
    if (at != NULL && (*at | 0x20) == 'e') {
        at++;
        at = skip_digits(at + (*at == '+' || *at == '-'));
    }
    return at;
}

static inline Bytes
skip_word(Bytes at, const char *word)
{
    while (*word != '\0') {
        if (*at++ != (unsigned char)*word++) {
            return NULL;
        }
    }
    return at;
}

static Bytes skip_value(Bytes at, Bytes end, int depth);

/* Skip an object or an array, at its opening bracket. */
static Bytes
skip_container(Bytes at, Bytes end, int depth)
{
    int is_object = *at == '{';
    unsigned char closing = is_object ? '}' : ']';
    Text key;
    if (depth >= MAX_DEPTH) {
        return NULL;
    }
    at = skip_space(at + 1);
    if (*at == closing) {
        return at + 1;
    }
    for (;;) {
        if (is_object) {
            at = *at == '"' ? skip_string(at + 1, end, &key) : NULL;
            if (at == NULL || *(at = skip_space(at)) != ':') {
                return NULL;
            }
            at = skip_space(at + 1);
        }
        at = skip_value(at, end, depth + 1);
        if (at == NULL) {
            return NULL;
        }
        at = skip_space(at);
        if (*at == closing) {
            return at + 1;
        }
        if (*at != ',') {
            return NULL;
        }
        at = skip_space(at + 1);
    }
}

static Bytes
skip_value(Bytes at, Bytes end, int depth)
{
    Text text;
    switch (*at) {
    case '"': return skip_string(at + 1, end, &text);
    case '{':
    case '[': return skip_container(at, end, depth);
    case 't': return skip_word(at, "true");
    case 'f': return skip_word(at, "false");
    case 'n': return skip_word(at, "null");
    default: return skip_number(at);
    }
}

/* --- texts ---------------------------------------------------------------------------------------- */

static unsigned char *
write_utf8(unsigned char *out, uint32_t character)
{
    if (character < 0x80) {
        *out++ = (unsigned char)character;
        return out;
    }
    if (character < 0x800) {
        *out++ = (unsigned char)(0xC0 | character >> 6);
    } else {
        if (character < 0x10000) {
            *out++ = (unsigned char)(0xE0 | character >> 12);
        } else {
            *out++ = (unsigned char)(0xF0 | character >> 18);
            *out++ = (unsigned char)(0x80 | (character >> 12 & 0x3F));
        }
        *out++ = (unsigned char)(0x80 | (character >> 6 & 0x3F));
    }
    *out++ = (unsigned char)(0x80 | (character & 0x3F));
    return out;
}

/* Write a text that was skipped before, with its escapes decoded; return the byte after it. It is never
 * longer than with them. */
static unsigned char *
write_text(unsigned char *out, const Text *text)
{
    Bytes at = text->begin;
    while (at < text->end) {
        if (*at == '\\') {
            uint32_t character = 0;
            at = skip_escape(at + 1, &character);
            out = write_utf8(out, character);
        } else {
            *out++ = *at++;
        }
    }
    return out;
}

/* Decode a text that has escapes into a buffer of `size` bytes, before a zero byte. Return whether it has
 * room. */
static int
unescape(Text *text, unsigned char *buffer, ptrdiff_t size)
{
    if (text->end - text->begin >= size) {
        return 0;
    }
    unsigned char *end = write_text(buffer, text);
    *end = '\0';
    text->begin = buffer;
    text->end = end;
    text->is_escaped = 0;
    return 1;
}

/* --- timestamps: RFC 3339 -------------------------------------------------------------------------- */

#define SECONDS_PER_DAY 86400

/* Return the number at two digits, or -1. */
static inline int
two_digits(Bytes at)
{
    return is_between(at[0], '0', '9') && is_between(at[1], '0', '9')
               ? (at[0] - '0') * 10 + at[1] - '0'
               : -1;
}

/* Return the days from 1970 to the date, or -1 if there is no such day or it is before 1969. */
static int64_t
days_since_1970(int year, int month, int day)
{
    static const short days_before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365};
    if (year < 1970 || month < 1 || month > 12) {
        return -1;
    }
    int is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    int length = days_before[month] - days_before[month - 1] + (month == 2 && is_leap);
    if (day < 1 || day > length) {
        return -1;
    }
    int before = year - 1;
    int leap_days = before / 4 - before / 100 + before / 400 - 477; /* 477 before 1970 */
    return (int64_t)(year - 1970) * 365 + leap_days + days_before[month - 1] + (month > 2 && is_leap) +
           day - 1;
}

/* Read the offset from UTC in seconds, which is the whole rest of the text. Return whether it is one. */
static int
read_offset(Bytes at, Bytes end, int *offset)
{
    if (end - at == 1 && (*at | 0x20) == 'z') {
        *offset = 0;
        return 1;
    }
    if (end - at != 6 || (at[0] != '+' && at[0] != '-') || at[3] != ':') {
        return 0;
    }
    int hours = two_digits(at + 1), minutes = two_digits(at + 4);
    *offset = (hours * 60 + minutes) * (at[0] == '-' ? -60 : 60);
    return hours >= 0 && hours < 24 && minutes >= 0 && minutes < 60;
}

/* Read a timestamp as epoch seconds, rounded down. Return whether it is one, in range; a leap second and
 * a local year before 1970 are left to the Python decoder. */
static int
read_timestamp(const Text *text, uint32_t *seconds)
{
    Bytes at = text->begin;
    if (text->end - at < (ptrdiff_t)sizeof "2026-02-02T12:00:00Z" - 1 || at[4] != '-' || at[7] != '-' ||
        (at[10] | 0x20) != 't' || at[13] != ':' || at[16] != ':') {
        return 0;
    }
    int century = two_digits(at), of_century = two_digits(at + 2);
    int month = two_digits(at + 5), day = two_digits(at + 8);
    int hour = two_digits(at + 11), minute = two_digits(at + 14), second = two_digits(at + 17);
    if (century < 0 || of_century < 0 || hour < 0 || hour > 23 || minute < 0 || minute > 59 ||
        second < 0 || second > 59) {
        return 0;
    }
    int64_t days = days_since_1970(century * 100 + of_century, month, day);
    at += 19;
    if (*at == '.') {
        at = skip_digits(at + 1);
    }
    int offset;
    if (days < 0 || at == NULL || at >= text->end || !read_offset(at, text->end, &offset)) {
        return 0;
    }
    int64_t epoch = days * SECONDS_PER_DAY + (hour * 60 + minute) * 60 + second - offset;
    *seconds = (uint32_t)epoch;
    return epoch >= 0 && epoch <= UINT32_MAX;
}

/* --- events ---------------------------------------------------------------------------------------- */

/* Fields of one event; the timestamp's text is replaced by its second. */
typedef struct {
    Text texts[COLUMNS];
    uint32_t seconds;
} Event;

#define NAME_MAX_BYTES 10
#define NAME_IS(name) (memcmp(key->begin, name, sizeof name - 1) == 0)

static inline int
field_of(const Text *key)
{
    switch (key->end - key->begin) {
    case 6: return NAME_IS("app_id") ? APP_ID : UNKNOWN;
    case 7: return NAME_IS("user_id") ? USER_ID : UNKNOWN;
    case 9: return NAME_IS("timestamp") ? TIMESTAMP : UNKNOWN;
    case 10:
        return NAME_IS("event_name") ? EVENT_NAME : NAME_IS("properties") ? PROPERTIES : UNKNOWN;
    default: return UNKNOWN;
    }
}

/* Skip a name and the colon after it, and set the field. */
static inline Bytes
read_name(Bytes at, Bytes end, int *field)
{
    /* An escape has at most six bytes for one, so that a longer text is not the name of a field. */
    unsigned char buffer[6 * NAME_MAX_BYTES + 1];
    Text key;
    at = *at == '"' ? skip_string(at + 1, end, &key) : NULL;
    if (at == NULL || *(at = skip_space(at)) != ':') {
        return NULL;
    }
    *field = key.is_escaped && !unescape(&key, buffer, sizeof buffer) ? UNKNOWN : field_of(&key);
    return skip_space(at + 1);
}

/* Properties that are null or absent. */
static const unsigned char empty_object[] = "{}";
static const Text no_properties = {empty_object, empty_object + 2, 0};

/* Skip the value of a field, and set its text. The last one of repeated fields counts. */
static inline Bytes
read_field(Bytes at, Bytes end, int field, Event *event)
{
    if (field == UNKNOWN) {
        return skip_value(at, end, 1);
    }
    Text *text = &event->texts[field];
    if (field != PROPERTIES) {
        return *at == '"' ? skip_string(at + 1, end, text) : NULL;
    }
    if (*at == '{') {
        text->begin = at;
        return text->end = skip_container(at, end, 1);
    }
    *text = no_properties;
    return skip_word(at, "null");
}

/* Return whether the event has all its fields, and none is empty. */
static inline int
is_complete(Event *event)
{
    unsigned char buffer[64];
    for (int field = TIMESTAMP; field <= USER_ID; field++) {
        if (event->texts[field].begin == event->texts[field].end) {
            return 0;
        }
    }
    Text *timestamp = &event->texts[TIMESTAMP];
    if (timestamp->is_escaped && !unescape(timestamp, buffer, sizeof buffer)) {
        return 0;
    }
    return read_timestamp(timestamp, &event->seconds);
}

/* Read a value of `size` bytes. Return whether it is certain to be an event. */
static int
read_event(Bytes at, Py_ssize_t size, Event *event)
{
    Bytes end = at + size;
    int field;
    memset(event, 0, sizeof *event);
    event->texts[PROPERTIES] = no_properties;
    at = skip_space(at);
    if (*at != '{') {
        return 0;
    }
    do {
        at = read_name(skip_space(at + 1), end, &field);
        if (at != NULL) {
            at = read_field(at, end, field, event);
        }
        if (at == NULL) {
            return 0;
        }
        at = skip_space(at);
    } while (*at == ',');
    return *at == '}' && skip_space(at + 1) == end && is_complete(event);
}

/* --- columns --------------------------------------------------------------------------------------- */

#define FIRST_SIZE 4096

/* Packed column: a bytes object of which the first `used` bytes are written. */
typedef struct {
    PyObject *object;
    Py_ssize_t used;
} Column;

/* Return where to write `more` bytes, or NULL with an exception set. */
static inline unsigned char *
reserve(Column *column, Py_ssize_t more)
{
    Py_ssize_t size = PyBytes_GET_SIZE(column->object);
    if (more > size - column->used) {
        if (more > PY_SSIZE_T_MAX / 4 - column->used) {
            PyErr_NoMemory();
            return NULL;
        }
        Py_ssize_t needed = column->used + more;
        /* Frees the object and sets it to NULL if there is no memory. */
        if (_PyBytes_Resize(&column->object, needed > 2 * size ? needed : 2 * size) < 0) {
            return NULL;
        }
    }
    return (unsigned char *)PyBytes_AS_STRING(column->object) + column->used;
}

static inline void
set_used(Column *column, const unsigned char *end)
{
    column->used = (const char *)end - PyBytes_AS_STRING(column->object);
}

/* Append a text after its length. Return -1 with an exception set if there is no memory. */
static inline int
append_text(Column *column, const Text *text)
{
    size_t length = (size_t)(text->end - text->begin);
    unsigned char *out = reserve(column, (Py_ssize_t)length + VARINT_MAX);
    if (out == NULL) {
        return -1;
    }
    if (text->is_escaped) {
        unsigned char *decoded = out + VARINT_MAX;
        length = (size_t)(write_text(decoded, text) - decoded);
        out = varint_write(out, length);
        memmove(out, decoded, length);
    } else {
        out = varint_write(out, length);
        memcpy(out, text->begin, length);
    }
    set_used(column, out + length);
    return 0;
}

static int
append_event(Column *columns, const Event *event)
{
    unsigned char *out = reserve(&columns[TIMESTAMP], 4);
    if (out == NULL) {
        return -1;
    }
    for (int byte = 0; byte < 4; byte++) {
        *out++ = (unsigned char)(event->seconds >> (8 * byte));
    }
    set_used(&columns[TIMESTAMP], out);
    for (int field = APP_ID; field < COLUMNS; field++) {
        if (append_text(&columns[field], &event->texts[field]) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Append values from `start` up to the first that is not certain to be an event. Return their number, or
 * -1 with an exception set. */
static Py_ssize_t
append_values(Column *columns, PyObject *values, Py_ssize_t start)
{
    Py_ssize_t at = start;
    for (Event event; at < PyList_GET_SIZE(values); at++) {
        PyObject *value = PyList_GET_ITEM(values, at);
        if (!PyBytes_CheckExact(value) ||
            !read_event((Bytes)PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), &event)) {
            break;
        }
        if (append_event(columns, &event) < 0) {
            return -1;
        }
    }
    return at - start;
}

static PyObject *
pack(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *values, *packed = NULL;
    Py_ssize_t start = 0, rows = 0;
    Column columns[COLUMNS] = {{NULL, 0}};
    if (!PyArg_ParseTuple(args, "O!|n:pack", &PyList_Type, &values, &start)) {
        return NULL;
    }
    if (start < 0) {
        PyErr_SetString(PyExc_ValueError, "start must not be negative");
        return NULL;
    }
    for (int column = 0; column < COLUMNS; column++) {
        columns[column].object = PyBytes_FromStringAndSize(NULL, FIRST_SIZE);
        if (columns[column].object == NULL) {
            goto done;
        }
    }
    rows = append_values(columns, values, start);
    if (rows < 0) {
        goto done;
    }
    for (int column = 0; column < COLUMNS; column++) {
        if (_PyBytes_Resize(&columns[column].object, columns[column].used) < 0) {
            goto done;
        }
    }
    packed = Py_BuildValue("nOOOOO", rows, columns[TIMESTAMP].object, columns[APP_ID].object,
                           columns[EVENT_NAME].object, columns[USER_ID].object,
                           columns[PROPERTIES].object);
done:
    for (int column = 0; column < COLUMNS; column++) {
        Py_XDECREF(columns[column].object);
    }
    return packed;
}

PyDoc_STRVAR(pack_doc,
             "pack(values, start=0, /)\n--\n\n"
             "Return the number of values from start on that are events, and their packed columns.\n\n"
             "The value after them may be an event all the same: decode.decode has the answer.");

static PyMethodDef methods[] = {
    {"pack", pack, METH_VARARGS, pack_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_decoding",
    .m_doc = "Compiled decoder of record values.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__decoding(void)
{
    return PyModuleDef_Init(&module);
}
