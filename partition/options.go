package partition

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// Options are what Open takes. They do not change while the partition is open.
type Options struct {
	// FS is the file system; nil is the operating system's.
	FS vfs.FS
	// Files bounds the open files of all partitions that share it; nil is a cache of
	// its own, of log.DefaultOpenFiles.
	Files *log.FileCache
	// NoLock leaves out the directory's lock: the caller holds one above it.
	NoLock bool
	// MustExist refuses a directory that holds no log with a *log.CorruptionError.
	MustExist bool
	// Logger is told what recovery cut and what failed in the background; nil is silent.
	Logger *slog.Logger
	// Now is the wall clock; nil is time.Now.
	Now func() time.Time
	// OnSync is called after each sync of records to the disk: see log.Options.
	OnSync func(took time.Duration, err error)
	// Replicator commits appends on a majority of peers. Nil commits them here.
	Replicator Replicator
	// Config is what may change later, too.
	Config Config
}

// Config are the settings of a partition that may change while it is open.
type Config struct {
	// Log are the settings of its files, the durability level among them.
	Log log.Config
	// MaxBatchBytes bounds a record batch as it is stored. Zero means 1 MiB. (max.message.bytes)
	MaxBatchBytes int
	// MaxDecompressedBytes bounds what a compressed batch from outside may expand
	// to. Zero means log.DefaultMaxDecompressedBytes.
	MaxDecompressedBytes int
	// AppendTime gives every record the time of its append instead of the time its
	// producer gave it. It never goes back. (message.timestamp.type)
	AppendTime bool
	// RequireKeys refuses records without a key, which compaction could not keep. (cleanup.policy)
	RequireKeys bool
	// Compression is what batches are stored with. KeepCompression stores a batch as
	// it came, records uncompressed. (compression.type)
	Compression      compress.Codec
	CompressionLevel int // zero means the codec's default
	// Recompress makes Compression count for batches that come compressed otherwise.
	Recompress bool
	// ProducerExpiry is how long a producer that writes nothing is remembered. Zero
	// means 24 hours, negative for ever. (producer.id.expiration.ms)
	ProducerExpiry time.Duration
}

const (
	defaultMaxBatchBytes  = 1 << 20
	largestMaxBatchBytes  = 64 << 20
	largestDecompressed   = 256 << 20 // the log itself looks into no larger batch, for lookups by time
	defaultProducerExpiry = 24 * time.Hour
)

// withDefaults fills zero fields and reports every bad one, the log's too.
func (c Config) withDefaults() (Config, error) {
	var bad []error
	if c.MaxBatchBytes == 0 {
		c.MaxBatchBytes = defaultMaxBatchBytes
	}
	if c.MaxBatchBytes < log.BatchHeaderLen || c.MaxBatchBytes > largestMaxBatchBytes {
		bad = append(bad, fmt.Errorf("partition config: MaxBatchBytes is %d: must lie in %d to %d", c.MaxBatchBytes, log.BatchHeaderLen, largestMaxBatchBytes))
	}
	if c.MaxDecompressedBytes == 0 {
		c.MaxDecompressedBytes = log.DefaultMaxDecompressedBytes
	}
	if c.MaxDecompressedBytes < 0 || c.MaxDecompressedBytes > largestDecompressed {
		bad = append(bad, fmt.Errorf("partition config: MaxDecompressedBytes is %d: must lie in 0 to %d", c.MaxDecompressedBytes, largestDecompressed))
	}
	if !c.Compression.Valid() {
		bad = append(bad, fmt.Errorf("partition config: Compression is %d: not known", c.Compression))
	}
	if c.ProducerExpiry == 0 {
		c.ProducerExpiry = defaultProducerExpiry
	}
	return c, errors.Join(append(bad, c.Log.Validate())...)
}
