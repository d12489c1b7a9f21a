package kafka

import (
	"strings"
	"sync"
	"time"

	"github.com/x/embedlog/internal/engine"
)

// quotas is the Throttler of the database's quotas. Each that somebody takes from is
// a bucket that fills at the quota's rate up to what comes in a second:
//
//	full: a second's worth     what is taken below zero is a debt, and the client waits
//	|--------------|-----------|  until it is paid: so the rate holds whatever the size
//	            now           0|  of a single request
//
// Without quotas it costs the look at an atomic pointer.
type quotas struct {
	engine *engine.Engine

	mu      sync.Mutex
	buckets map[bucketKey]*bucket
	swept   time.Time // when the full ones were dropped last
}

// bucketKey is a quota and who takes from it together.
type bucketKey struct {
	name  string
	share engine.QuotaEntity
}

type bucket struct {
	free float64 // below zero is a debt
	at   time.Time
	rate float64 // a second, as it was last asked for
}

// quotaWindow is how much of its rate a client that was idle may take at once.
const quotaWindow = time.Second

// maxBuckets is from how many buckets on the full ones are dropped: client ids are
// the clients' to make up.
const maxBuckets = 10_000

// maxBucketName is how much of a client id tells buckets apart: they may have 32 KiB,
// and quotas by name are of shorter ones.
const maxBucketName = 255

func newQuotas(e *engine.Engine) *quotas {
	return &quotas{engine: e, buckets: make(map[bucketKey]*bucket)}
}

// Throttle counts what a request moved.
func (q *quotas) Throttle(m Moved) time.Duration {
	table := q.engine.QuotaTable()
	if table.Empty() {
		return 0
	}
	wait := time.Duration(0)
	for _, x := range [...]struct {
		name  string
		taken float64
	}{
		{engine.QuotaProducerByteRate, float64(m.ProducedBytes)},
		{engine.QuotaConsumerByteRate, float64(m.FetchedBytes)},
		{engine.QuotaRequestPercentage, percentSeconds(m)},
	} {
		if x.taken <= 0 {
			continue
		}
		if rate, share, ok := table.Lookup(x.name, m.Principal.Name, m.ClientID); ok {
			wait = max(wait, q.take(bucketKey{x.name, share}, rate, x.taken))
		}
	}
	return wait
}

// percentSeconds is what a request counts for request_percentage: a quota of 100 is
// the whole time of one CPU. What a request waited for is not in its time; the disk is.
func percentSeconds(m Moved) float64 { return m.Duration.Seconds() * 100 }

// connect counts a connection and returns for how long it has to wait.
func (q *quotas) connect(host string) time.Duration {
	table := q.engine.QuotaTable()
	if table.Empty() {
		return 0
	}
	rate, ok := table.LookupIP(engine.QuotaConnectionCreationRate, host)
	if !ok {
		return 0
	}
	return q.take(bucketKey{engine.QuotaConnectionCreationRate, engine.QuotaEntity{IP: host}}, rate, 1)
}

// take takes from a bucket and returns for how long it is below zero.
func (q *quotas) take(key bucketKey, rate, n float64) time.Duration {
	now := time.Now()
	if id := key.share.ClientID; len(id) > maxBucketName {
		key.share.ClientID = strings.Clone(id[:maxBucketName]) // those that begin alike take from one together
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.buckets[key]
	if b == nil {
		// Not for each new one, or making up client ids would cost us more than them.
		if len(q.buckets) >= maxBuckets && now.Sub(q.swept) >= quotaWindow {
			q.dropFullLocked(now)
		}
		if len(q.buckets) >= maxBuckets {
			key.share = engine.QuotaEntity{} // all that find no room take from one together
			b = q.buckets[key]
		}
		if b == nil {
			b = &bucket{free: full(rate), at: now}
			q.buckets[key] = b
		}
	}
	b.rate = rate
	b.fill(now)
	b.free -= n
	if b.free >= 0 {
		return 0
	}
	// What takes longer than this is cut by whoever waits anyway.
	return time.Duration(min(-b.free/rate, maxThrottle.Seconds()) * float64(time.Second))
}

// full is what a bucket holds at most. One connection, or one request, always fits.
func full(rate float64) float64 { return max(rate*quotaWindow.Seconds(), 1) }

// fill adds what has come in since the last time.
func (b *bucket) fill(now time.Time) {
	b.free = min(b.free+now.Sub(b.at).Seconds()*b.rate, full(b.rate))
	b.at = now
}

// dropFullLocked drops buckets that a new one would be like.
func (q *quotas) dropFullLocked(now time.Time) {
	q.swept = now
	for key, b := range q.buckets {
		if b.fill(now); b.free >= full(b.rate) {
			delete(q.buckets, key)
		}
	}
}
