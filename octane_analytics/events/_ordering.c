/* Order of packed rows by the table's sorting key, and columns in that order.
 *
 * A packed column is a list of chunks, each of whole values, as `packed_columns` describes them: a second
 * is four bytes, little-endian; a text follows its length, an LEB128 varint. Everything is checked before
 * it is read, and ValueError raised for anything else. Runs with the GIL held. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "_varint.h"

#define PIECE_BYTES ((size_t)256 << 10)
#define AHEAD_ROWS 12
#define AHEAD_BYTES 2048
#define LINE_BYTES 64
#define DIGIT_BITS 11
#define DIGITS ((size_t)1 << DIGIT_BITS)
#define MAX_ROWS ((Py_ssize_t)UINT32_MAX)
#define SECOND_BYTES 4

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) ((void)(address))
#endif

typedef struct {
    const uint8_t *start; /* the text, or where packed texts are copied, its length */
    size_t bytes;
} Slice;

/* Texts as keys: rows with equal ones are a group. */
typedef struct {
    Slice application;
    Slice name;
} Pair;

typedef struct {
    Pair pair;
    uint32_t number; /* in order of appearance */
} Group;

static uint64_t hash_key[2];

/* Fetch the bytes, or some of them, into the cache: a block is larger than that, and a miss for each row
 * would take more time than all the rest. */
static inline void
prefetch(const uint8_t *start, size_t bytes)
{
    for (size_t at = 0; at < bytes && at < AHEAD_BYTES; at += LINE_BYTES) {
        PREFETCH(start + at);
    }
}

/* Return an array of `count` elements, or NULL with MemoryError set. */
static void *
new_array(size_t count, size_t bytes)
{
    void *array = NULL;
    if (count <= (size_t)PY_SSIZE_T_MAX / bytes) {
        array = PyMem_RawMalloc(count * bytes);
    }
    if (array == NULL) {
        PyErr_NoMemory();
    }
    return array;
}

static uint32_t
read_second(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
           (uint32_t)from[3] << 24;
}

/* Return the chunks as a tuple of bytes that nobody can change meanwhile; NULL with an error set. */
static PyObject *
frozen_chunks(PyObject *chunks)
{
    if (!PyList_Check(chunks)) {
        PyErr_SetString(PyExc_TypeError, "chunks must be a list of bytes");
        return NULL;
    }
    PyObject *frozen = PyList_AsTuple(chunks);
    if (frozen == NULL) {
        return NULL;
    }
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(frozen); at++) {
        if (!PyBytes_Check(PyTuple_GET_ITEM(frozen, at))) {
            PyErr_SetString(PyExc_TypeError, "chunks must be a list of bytes");
            Py_DECREF(frozen);
            return NULL;
        }
    }
    return frozen;
}

static Slice
chunk_at(PyObject *chunks, Py_ssize_t at)
{
    PyObject *chunk = PyTuple_GET_ITEM(chunks, at);
    return (Slice){(const uint8_t *)PyBytes_AS_STRING(chunk), (size_t)PyBytes_GET_SIZE(chunk)};
}

/* Return the start of each second; NULL with an error set. */
static Slice *
locate_seconds(PyObject *chunks, size_t rows)
{
    size_t found = 0;
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(chunks); at++) {
        Slice chunk = chunk_at(chunks, at);
        if (chunk.bytes % SECOND_BYTES) {
            PyErr_SetString(PyExc_ValueError, "a packed second is truncated");
            return NULL;
        }
        found += chunk.bytes / SECOND_BYTES;
    }
    if (found != rows) {
        PyErr_SetString(PyExc_ValueError, "packed seconds are not as many as the rows");
        return NULL;
    }
    Slice *slices = new_array(rows, sizeof *slices), *next = slices;
    if (slices == NULL) {
        return NULL;
    }
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(chunks); at++) {
        Slice chunk = chunk_at(chunks, at);
        for (size_t from = 0; from < chunk.bytes; from += SECOND_BYTES) {
            *next++ = (Slice){chunk.start + from, SECOND_BYTES};
        }
    }
    return slices;
}

/* Return the end of the packed text, or NULL if that is after the chunk's; `text` becomes its first byte. */
static const uint8_t *
text_end(const uint8_t *at, const uint8_t *end, const uint8_t **text)
{
    uint64_t bytes;
    *text = varint_read(at, end, &bytes);
    return *text != NULL && bytes <= (uint64_t)(end - *text) ? *text + bytes : NULL;
}

/* Return each text, with its length if `is_packed`; NULL with an error set. */
static Slice *
locate_texts(PyObject *chunks, size_t rows, int is_packed)
{
    size_t bytes = 0, found = 0;
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(chunks); at++) {
        bytes += chunk_at(chunks, at).bytes;
    }
    if (rows > bytes) { /* before memory is taken for them: an empty text has one byte */
        PyErr_SetString(PyExc_ValueError, "packed texts are not as many as the rows");
        return NULL;
    }
    Slice *slices = new_array(rows, sizeof *slices);
    if (slices == NULL) {
        return NULL;
    }
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(chunks); at++) {
        Slice chunk = chunk_at(chunks, at);
        const uint8_t *from = chunk.start, *end = chunk.start + chunk.bytes;
        while (from < end) {
            const uint8_t *text, *next = text_end(from, end, &text);
            if (next == NULL) {
                PyErr_SetString(PyExc_ValueError, "a packed text is truncated");
                goto failed;
            }
            if (found == rows) {
                PyErr_SetString(PyExc_ValueError, "packed texts are not as many as the rows");
                goto failed;
            }
            const uint8_t *start = is_packed ? from : text;
            slices[found++] = (Slice){start, (size_t)(next - start)};
            if ((size_t)(end - next) > AHEAD_BYTES + (size_t)(next - from)) {
                prefetch(next + AHEAD_BYTES, (size_t)(next - from));
            }
            from = next;
        }
    }
    if (found == rows) {
        return slices;
    }
    PyErr_SetString(PyExc_ValueError, "packed texts are not as many as the rows");
failed:
    PyMem_RawFree(slices);
    return NULL;
}

/* SipHash-1-3 (Aumasson, Bernstein) over the words of both texts and their lengths. Keyed, because texts
 * come from outside: nobody can choose many that collide. */

typedef struct {
    uint64_t a, b, c, d;
} HashState;

static inline uint64_t
rotated(uint64_t word, int bits)
{
    return word << bits | word >> (64 - bits);
}

static inline void
hash_round(HashState *state)
{
    state->a += state->b;
    state->c += state->d;
    state->b = rotated(state->b, 13) ^ state->a;
    state->d = rotated(state->d, 16) ^ state->c;
    state->a = rotated(state->a, 32);
    state->c += state->b;
    state->a += state->d;
    state->b = rotated(state->b, 17) ^ state->c;
    state->d = rotated(state->d, 21) ^ state->a;
    state->c = rotated(state->c, 32);
}

static inline void
hash_word(HashState *state, uint64_t word)
{
    state->d ^= word;
    hash_round(state);
    state->a ^= word;
}

/* Return a word of a text's last bytes, eight of them or all: different for different ones of a length.
 * Read without a copy, whose single bytes the processor could not load as a word at once. */
static inline uint64_t
last_word(Slice text)
{
    const uint8_t *end = text.start + text.bytes;
    if (text.bytes >= 8) {
        uint64_t word;
        memcpy(&word, end - 8, 8);
        return word;
    }
    if (text.bytes >= 4) {
        uint32_t first, last;
        memcpy(&first, text.start, 4);
        memcpy(&last, end - 4, 4);
        return (uint64_t)last << 32 | first;
    }
    if (text.bytes) {
        return (uint64_t)text.start[0] | (uint64_t)text.start[text.bytes / 2] << 8 |
               (uint64_t)end[-1] << 16;
    }
    return 0;
}

static inline void
hash_text(HashState *state, Slice text)
{
    for (size_t at = 0; at + 8 < text.bytes; at += 8) {
        uint64_t word;
        memcpy(&word, text.start + at, 8);
        hash_word(state, word);
    }
    hash_word(state, last_word(text));
}

static uint64_t
hash_pair(const Pair *pair)
{
    HashState state = {
        hash_key[0] ^ 0x736f6d6570736575u,
        hash_key[1] ^ 0x646f72616e646f6du,
        hash_key[0] ^ 0x6c7967656e657261u,
        hash_key[1] ^ 0x7465646279746573u,
    };
    hash_text(&state, pair->application);
    hash_text(&state, pair->name);
    hash_word(&state, (uint64_t)pair->application.bytes << 32 ^ (uint64_t)pair->name.bytes);
    state.c ^= 0xff;
    for (int round = 0; round < 3; round++) {
        hash_round(&state);
    }
    return state.a ^ state.b ^ state.c ^ state.d;
}

static int
are_equal(Slice one, Slice other)
{
    return one.bytes == other.bytes && memcmp(one.start, other.start, one.bytes) == 0;
}

/* Compare texts as ClickHouse compares a String: byte by byte, the shorter first. */
static int
compare_texts(Slice one, Slice other)
{
    int found = memcmp(one.start, other.start, one.bytes < other.bytes ? one.bytes : other.bytes);
    return found ? found : (one.bytes > other.bytes) - (one.bytes < other.bytes);
}

static int
compare_groups(const void *one, const void *other)
{
    const Pair *left = &((const Group *)one)->pair, *right = &((const Group *)other)->pair;
    int found = compare_texts(left->application, right->application);
    return found ? found : compare_texts(left->name, right->name);
}

/* Hash table of groups; a slot is a group's number and one, or 0. At most half of the slots are used. */
typedef struct {
    Group *groups;
    uint64_t *hashes; /* by number */
    uint32_t *slots;
    size_t count, capacity, mask;
} Groups;

static void
free_groups(Groups *table)
{
    PyMem_RawFree(table->groups);
    PyMem_RawFree(table->hashes);
    PyMem_RawFree(table->slots);
}

/* Make room for more groups. Return -1 with MemoryError set, and then leave the table as it is. */
static int
grow_groups(Groups *table)
{
    size_t capacity = table->capacity ? table->capacity * 2 : 256;
    Group *groups = new_array(capacity, sizeof *groups);
    uint64_t *hashes = new_array(capacity, sizeof *hashes);
    uint32_t *slots = new_array(capacity * 2, sizeof *slots);
    if (groups == NULL || hashes == NULL || slots == NULL) {
        PyMem_RawFree(groups);
        PyMem_RawFree(hashes);
        PyMem_RawFree(slots);
        return -1;
    }
    if (table->count) {
        memcpy(groups, table->groups, table->count * sizeof *groups);
        memcpy(hashes, table->hashes, table->count * sizeof *hashes);
    }
    memset(slots, 0, capacity * 2 * sizeof *slots);
    size_t mask = capacity * 2 - 1;
    for (size_t number = 0; number < table->count; number++) {
        size_t slot = (size_t)hashes[number] & mask;
        while (slots[slot]) {
            slot = (slot + 1) & mask;
        }
        slots[slot] = (uint32_t)(number + 1);
    }
    free_groups(table);
    *table = (Groups){groups, hashes, slots, table->count, capacity, mask};
    return 0;
}

/* Give the group's number; -1 with MemoryError set. */
static int
find_group(Groups *table, const Pair *pair, uint32_t *number)
{
    uint64_t hash = hash_pair(pair);
    size_t slot = (size_t)hash & table->mask;
    for (; table->slots[slot]; slot = (slot + 1) & table->mask) {
        *number = table->slots[slot] - 1;
        const Pair *found = &table->groups[*number].pair;
        if (table->hashes[*number] == hash && are_equal(found->application, pair->application) &&
            are_equal(found->name, pair->name)) {
            return 0;
        }
    }
    *number = (uint32_t)table->count;
    table->slots[slot] = *number + 1;
    table->groups[*number] = (Group){*pair, *number};
    table->hashes[*number] = hash;
    table->count++;
    return table->count < table->capacity ? 0 : grow_groups(table);
}

/* Replace each group's number by its rank among all. Return -1 with MemoryError set. */
static int
rank_groups(Groups *table, uint64_t *numbers, size_t rows)
{
    uint32_t *ranks = new_array(table->count, sizeof *ranks);
    if (ranks == NULL) {
        return -1;
    }
    qsort(table->groups, table->count, sizeof *table->groups, compare_groups);
    for (size_t rank = 0; rank < table->count; rank++) {
        ranks[table->groups[rank].number] = (uint32_t)rank;
    }
    for (size_t row = 0; row < rows; row++) {
        numbers[row] = ranks[numbers[row]];
    }
    PyMem_RawFree(ranks);
    return 0;
}

static int
find_ranks(const Slice *applications, const Slice *names, size_t rows, uint64_t *ranks)
{
    Groups table = {0};
    int failed = grow_groups(&table);
    for (size_t row = 0; row < rows && !failed; row++) {
        Pair pair = {applications[row], names[row]};
        uint32_t number = 0;
        failed = find_group(&table, &pair, &number);
        ranks[row] = number;
    }
    failed = failed || rank_groups(&table, ranks, rows);
    free_groups(&table);
    return failed ? -1 : 0;
}

/* Complete keys: the rank, and in as many low bits as needed, the second. Return the bits of a key. */
static unsigned
add_seconds(uint64_t *keys, const Slice *seconds, size_t rows)
{
    uint32_t least = UINT32_MAX, most = 0;
    uint64_t last = 0;
    for (size_t row = 0; row < rows; row++) {
        uint32_t second = read_second(seconds[row].start);
        least = second < least ? second : least;
        most = second > most ? second : most;
        last = keys[row] > last ? keys[row] : last;
    }
    unsigned bits = 0, shift = 0;
    while (shift < 32 && (most - least) >> shift) {
        shift++;
    }
    while (bits < 32 && last >> bits) {
        bits++;
    }
    for (size_t row = 0; row < rows; row++) {
        keys[row] = keys[row] << shift | (read_second(seconds[row].start) - least);
    }
    return bits + shift;
}

static int
is_ascending(const uint64_t *keys, size_t rows)
{
    for (size_t row = 1; row < rows; row++) {
        if (keys[row] < keys[row - 1]) {
            return 0;
        }
    }
    return 1;
}

typedef struct {
    uint64_t key;
    uint32_t row;
} Keyed;

/* Sort by the keys' lowest `bits`, stable: by one digit after the other, the least first. Returns whichever
 * of the two arrays has the result. */
static Keyed *
sort_keyed(Keyed *from, Keyed *to, size_t rows, unsigned bits)
{
    size_t places[DIGITS];
    for (unsigned shift = 0; shift < bits; shift += DIGIT_BITS) {
        memset(places, 0, sizeof places);
        for (size_t at = 0; at < rows; at++) {
            places[from[at].key >> shift & (DIGITS - 1)]++;
        }
        size_t place = 0;
        for (size_t value = 0; value < DIGITS; value++) {
            size_t count = places[value];
            places[value] = place;
            place += count;
        }
        for (size_t at = 0; at < rows; at++) {
            to[places[from[at].key >> shift & (DIGITS - 1)]++] = from[at];
        }
        Keyed *other = from;
        from = to;
        to = other;
    }
    return from;
}

/* Return the row numbers in ascending order of the keys as bytes; NULL with an error set. */
static PyObject *
sorted_rows(const uint64_t *keys, size_t rows, unsigned bits)
{
    PyObject *order = NULL;
    Keyed *one = new_array(rows, sizeof *one), *other = new_array(rows, sizeof *other);
    if (one != NULL && other != NULL) {
        order = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(rows * sizeof(uint32_t)));
    }
    if (order != NULL) {
        for (size_t row = 0; row < rows; row++) {
            one[row] = (Keyed){keys[row], (uint32_t)row};
        }
        const Keyed *sorted = sort_keyed(one, other, rows, bits);
        char *to = PyBytes_AS_STRING(order);
        for (size_t at = 0; at < rows; at++, to += sizeof(uint32_t)) {
            memcpy(to, &sorted[at].row, sizeof(uint32_t));
        }
    }
    PyMem_RawFree(one);
    PyMem_RawFree(other);
    return order;
}

/* Return the order as `row_order` does. The arguments are frozen. */
static PyObject *
order_of(PyObject *seconds, PyObject *applications, PyObject *names, size_t rows)
{
    PyObject *order = NULL;
    Slice *at_seconds = NULL, *at_applications = NULL, *at_names = NULL;
    uint64_t *keys = NULL;
    if ((at_seconds = locate_seconds(seconds, rows)) != NULL &&
        (at_applications = locate_texts(applications, rows, 0)) != NULL &&
        (at_names = locate_texts(names, rows, 0)) != NULL &&
        (keys = new_array(rows, sizeof *keys)) != NULL &&
        find_ranks(at_applications, at_names, rows, keys) == 0) {
        unsigned bits = add_seconds(keys, at_seconds, rows);
        PyMem_RawFree(at_seconds);
        PyMem_RawFree(at_applications);
        PyMem_RawFree(at_names);
        at_seconds = at_applications = at_names = NULL;
        order = is_ascending(keys, rows) ? Py_NewRef(Py_None) : sorted_rows(keys, rows, bits);
    }
    PyMem_RawFree(at_seconds);
    PyMem_RawFree(at_applications);
    PyMem_RawFree(at_names);
    PyMem_RawFree(keys);
    return order;
}

static PyObject *
row_order(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *chunks[3], *frozen[3] = {NULL}, *order = NULL;
    Py_ssize_t rows;
    if (!PyArg_ParseTuple(args, "OOOn:row_order", &chunks[0], &chunks[1], &chunks[2], &rows)) {
        return NULL;
    }
    if (rows < 0 || rows > MAX_ROWS) {
        PyErr_SetString(PyExc_ValueError, "the number of rows is out of range");
        return NULL;
    }
    if ((frozen[0] = frozen_chunks(chunks[0])) != NULL &&
        (frozen[1] = frozen_chunks(chunks[1])) != NULL &&
        (frozen[2] = frozen_chunks(chunks[2])) != NULL) {
        order = order_of(frozen[0], frozen[1], frozen[2], (size_t)rows);
    }
    Py_XDECREF(frozen[0]);
    Py_XDECREF(frozen[1]);
    Py_XDECREF(frozen[2]);
    return order;
}

/* Return the row at a place of the order. */
static inline size_t
row_at(const char *order, size_t at)
{
    uint32_t row;
    memcpy(&row, order + at * sizeof row, sizeof row);
    return row;
}

/* Call `write` with pieces of the slices in order. Return -1 with an error set. */
static int
write_pieces(const Slice *slices, const char *order, size_t rows, PyObject *write)
{
    for (size_t first = 0, end; first < rows; first = end) {
        size_t bytes = slices[row_at(order, first)].bytes;
        for (end = first + 1; end < rows; end++) {
            size_t more = slices[row_at(order, end)].bytes;
            if (bytes >= PIECE_BYTES || more > PIECE_BYTES - bytes) {
                break;
            }
            bytes += more;
        }
        /* At most the chunks' bytes in all, or of one value: no more than a Py_ssize_t holds. */
        PyObject *piece = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bytes);
        if (piece == NULL) {
            return -1;
        }
        char *to = PyBytes_AS_STRING(piece);
        for (size_t at = first; at < end; at++) {
            if (at + AHEAD_ROWS < end) {
                Slice ahead = slices[row_at(order, at + AHEAD_ROWS)];
                prefetch(ahead.start, ahead.bytes);
            }
            Slice slice = slices[row_at(order, at)];
            memcpy(to, slice.start, slice.bytes);
            to += slice.bytes;
        }
        PyObject *result = PyObject_CallOneArg(write, piece);
        Py_DECREF(piece);
        if (result == NULL) {
            return -1;
        }
        Py_DECREF(result);
    }
    return 0;
}

static PyObject *
write_ordered(PyObject *args, int is_text)
{
    PyObject *chunks, *order, *write;
    if (!PyArg_ParseTuple(args, "OSO", &chunks, &order, &write)) {
        return NULL;
    }
    if (PyBytes_GET_SIZE(order) % (Py_ssize_t)sizeof(uint32_t)) {
        PyErr_SetString(PyExc_ValueError, "the order is truncated");
        return NULL;
    }
    size_t rows = (size_t)PyBytes_GET_SIZE(order) / sizeof(uint32_t);
    const char *rows_at = PyBytes_AS_STRING(order);
    for (size_t at = 0; at < rows; at++) {
        if (row_at(rows_at, at) >= rows) {
            PyErr_SetString(PyExc_ValueError, "the order names a row that does not exist");
            return NULL;
        }
    }
    PyObject *frozen = frozen_chunks(chunks);
    if (frozen == NULL) {
        return NULL;
    }
    int failed = -1;
    Slice *slices = is_text ? locate_texts(frozen, rows, 1) : locate_seconds(frozen, rows);
    if (slices != NULL) {
        failed = write_pieces(slices, rows_at, rows, write);
    }
    PyMem_RawFree(slices);
    Py_DECREF(frozen);
    return failed ? NULL : Py_NewRef(Py_None);
}

static PyObject *
write_seconds(PyObject *Py_UNUSED(module), PyObject *args)
{
    return write_ordered(args, 0);
}

static PyObject *
write_texts(PyObject *Py_UNUSED(module), PyObject *args)
{
    return write_ordered(args, 1);
}

static PyMethodDef methods[] = {
    {"row_order", row_order, METH_VARARGS,
     "row_order(seconds, applications, names, rows)\n--\n\n"
     "Return the numbers of rows in ascending order of application, name and second, stable, as unsigned\n"
     "32-bit integers; None if they are in this order. Raise ValueError for invalid chunks."},
    {"write_seconds", write_seconds, METH_VARARGS,
     "write_seconds(chunks, order, write)\n--\n\n"
     "Call `write` with pieces of the packed seconds in this order. Raise ValueError for invalid chunks."},
    {"write_texts", write_texts, METH_VARARGS,
     "write_texts(chunks, order, write)\n--\n\n"
     "Call `write` with pieces of the packed texts in this order. Raise ValueError for invalid chunks."},
    {NULL, NULL, 0, NULL},
};

/* Draw the key of the hash from the operating system. Return -1 with an error set. */
static int
draw_hash_key(PyObject *Py_UNUSED(module))
{
    PyObject *os = PyImport_ImportModule("os");
    PyObject *drawn = os ? PyObject_CallMethod(os, "urandom", "i", (int)sizeof hash_key) : NULL;
    Py_XDECREF(os);
    if (drawn == NULL) {
        return -1;
    }
    int failed = !PyBytes_Check(drawn) || PyBytes_GET_SIZE(drawn) != (Py_ssize_t)sizeof hash_key;
    if (failed) {
        PyErr_SetString(PyExc_SystemError, "os.urandom returned something else");
    } else {
        memcpy(hash_key, PyBytes_AS_STRING(drawn), sizeof hash_key);
    }
    Py_DECREF(drawn);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, draw_hash_key},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_ordering",
    .m_doc = "Order of packed rows by the table's sorting key; see `row_order`.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__ordering(void)
{
    return PyModuleDef_Init(&definition);
}
