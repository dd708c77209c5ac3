/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The qcow2 format, version 2 and 3: its header. Specification: docs/interop/qcow2.txt of QEMU.
 *
 * All numbers of the format are big-endian; structs here hold them in host order. The header is a stranger's: what
 * qcow2_header_read() lets through has every number in the range given beside it, but offsets are checked against the file only
 * by those who follow them.
 */
#ifndef HOST_BLOCK_QCOW2_H
#define HOST_BLOCK_QCOW2_H

#include "host/block/block.h"

#define QCOW2_MAGIC 0x514649fbu
#define QCOW2_CLUSTER_BITS_MIN 9u
#define QCOW2_CLUSTER_BITS_MAX 21u
#define QCOW2_L1_BYTES_MAX (32u << 20)
#define QCOW2_REFTABLE_BYTES_MAX (8u << 20)
#define QCOW2_SNAPSHOTS_MAX 65536u
#define QCOW2_NAME_MAX 1023u

/* Places in the file of what is changed in place. */
#define QCOW2_AT_REFTABLE 48     /* offset (8 bytes), clusters (4 bytes) */
#define QCOW2_AT_INCOMPATIBLE 72 /* 8 bytes each */
#define QCOW2_AT_AUTOCLEAR 88
#define QCOW2_V2_LENGTH 72u
#define QCOW2_V3_LENGTH 112u

/* Incompatible feature bits. */
#define QCOW2_DIRTY BIT(0)       /* refcounts may be wrong */
#define QCOW2_CORRUPT BIT(1)     /* anything may be wrong */
#define QCOW2_DATA_FILE BIT(2)   /* data are in another file */
#define QCOW2_COMPRESSION BIT(3) /* compression_type is not zlib */
#define QCOW2_EXTENDED_L2 BIT(4) /* subclusters */
/* Autoclear feature bits. */
#define QCOW2_BITMAPS BIT(0)

#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau

enum qcow2_compression { QCOW2_ZLIB, QCOW2_ZSTD };

struct qcow2_header {
	uint32_t version;             /* 2, 3 */
	uint32_t cluster_bits;        /* 9..21 */
	uint32_t refcount_order;      /* 0..6: refcounts have 1 << order bits */
	uint32_t crypt_method;
	uint32_t l1_size;             /* entries; * 8 <= QCOW2_L1_BYTES_MAX */
	uint32_t reftable_clusters;   /* in bytes <= QCOW2_REFTABLE_BYTES_MAX */
	uint32_t nsnapshots;          /* <= QCOW2_SNAPSHOTS_MAX */
	uint32_t header_length;       /* <= the cluster */
	uint8_t compression;          /* enum qcow2_compression, or unknown */
	uint64_t size;                /* of the disk in bytes, <= INT64_MAX */
	uint64_t l1_offset, reftable_offset, snapshots_offset;
	uint64_t incompatible, compatible, autoclear;
	char backing[QCOW2_NAME_MAX + 1];
	char backing_format[16];      /* "" if the image does not say */
	char unknown_feature[48];     /* the image's own name for the first incompatible bit that we do not know, or "" */
};

/* 0, or -errno with *err. */
int qcow2_header_read(int fd, struct qcow2_header *h, struct block_error *err);

struct qcow2_new {
	uint64_t size;
	unsigned cluster_bits;
	enum qcow2_compression compression;
	const char *backing, *backing_format;  /* as they are to be recorded; NULL: none */
};

/* Makes an empty image of an empty file. 0, or -errno with *err. */
int qcow2_create(int fd, const struct qcow2_new *o, struct block_error *err);

enum qcow2_repair { QCOW2_REPAIR_NONE, QCOW2_REPAIR_LEAKS, QCOW2_REPAIR_ALL };

struct qcow2_check {
	void (*say)(void *opaque, const char *text);   /* each thing that is wrong; may be NULL */
	void *opaque;
	uint64_t corruptions, leaks;                   /* found, whether repaired or not */
	uint64_t allocated, compressed, total;         /* clusters of the disk */
};

/* Checks the image; *result starts zeroed but for `say`. What can be repaired is, as asked; checking again tells the outcome. Corruptions
 * that are no matter of counts (an impossible entry) stay. 0 if it could be checked, or -errno with *err. */
int qcow2_check(const struct block_file *file, enum qcow2_repair repair, struct qcow2_check *result, struct block_error *err);

struct qcow2_backing {
	char name[QCOW2_NAME_MAX + 1];  /* "": none */
	enum block_format format;       /* BLOCK_AUTO: the image does not say */
};

/* What the image in fd is based on. */
int qcow2_backing_name(int fd, struct qcow2_backing *b, struct block_error *err);

#endif
