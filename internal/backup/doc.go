// Package backup keeps a copy of logs and small files in a directory, from which
// they can be restored. It knows files, sizes and checksums; what belongs together,
// and at which moment, is the caller's business.
//
//	DEST/BACKUP        the manifest of the newest complete backup
//	DEST/LOCK          taken while a backup is written
//	DEST/objects/      what manifests name: a file never changes once it has its name
//	    <log id>-<base offset>-<tag>-<bytes>     a segment, or the beginning of one
//	    <crc32c><crc64>-<bytes>-<name>           a checkpoint or another small file
//	    *.tmp                                    being written
//
// The manifest is replaced by one rename, after all that it names is durable. Until
// then the backup before is the one that counts, and nothing of it is touched; after
// it what no manifest names is removed. So a backup that is killed at any moment
// leaves the one before, and the next one goes on with the objects that are there.
//
// An object's name says what is in it: a segment's tag is random, and of one tag and
// length there is one content, because nothing is captured that a power cut could
// take back. A segment that has not changed since the last backup is therefore
// reused unread; one that has grown is copied again.
package backup
