package embedlog

import (
	"context"

	"github.com/x/embedlog/internal/engine"
)

// Quota is what a client of a network may take, by the names below. It must not be
// changed.
type Quota = engine.Quota

// QuotaEntity is who a quota is for: a user, a client id, both, or an address.
type QuotaEntity = engine.QuotaEntity

// The names of quotas, which are Kafka's.
const (
	QuotaProducerByteRate       = engine.QuotaProducerByteRate
	QuotaConsumerByteRate       = engine.QuotaConsumerByteRate
	QuotaRequestPercentage      = engine.QuotaRequestPercentage
	QuotaControllerMutationRate = engine.QuotaControllerMutationRate
	QuotaConnectionCreationRate = engine.QuotaConnectionCreationRate
)

// AlterQuota sets quotas of an entity and takes others away, all or nothing. They are
// in force, and on the disk, when it returns nil; *InvalidQuotaError, joined, say what
// cannot be.
func (db *DB) AlterQuota(ctx context.Context, entity QuotaEntity, set map[string]float64, unset ...string) error {
	return db.engine.AlterQuota(ctx, entity, set, unset...)
}

// Quotas are all that are set, ordered by entity.
func (db *DB) Quotas() []Quota { return db.engine.Quotas() }
