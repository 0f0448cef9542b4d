/* LEB128 varints, as ClickHouse's Native format has them before a text: seven bits a byte, the lowest
 * first, and the high bit in all bytes but the last. */

#ifndef OCTANE_ANALYTICS_VARINT_H
#define OCTANE_ANALYTICS_VARINT_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the longest varint of 64 bits. */
#define VARINT_MAX 10

/* Write the varint at `out`, which has room for VARINT_MAX bytes; return the byte after it. */
static inline unsigned char *
varint_write(unsigned char *out, uint64_t number)
{
    while (number > 0x7F) {
        *out++ = (unsigned char)(number | 0x80);
        number >>= 7;
    }
    *out++ = (unsigned char)number;
    return out;
}

/* Read a varint from `in`, before `end`; return the byte after it, or NULL if it is cut off or has more
 * than 64 bits. */
static inline const unsigned char *
varint_read(const unsigned char *in, const unsigned char *end, uint64_t *number)
{
    *number = 0;
    for (int shift = 0; in < end && shift < 64; shift += 7) {
        uint64_t bits = *in & 0x7F;
        if (shift == 63 && bits > 1) {
            return NULL;
        }
        *number |= bits << shift;
        if (*in++ < 0x80) {
            return in;
        }
    }
    return NULL;
}

#endif
