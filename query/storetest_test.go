package query_test

import (
	"testing"

	"github.com/x/embedlog/query"
	"github.com/x/embedlog/query/storetest"
)

func TestMemStores(t *testing.T) {
	storetest.Run(t, func(*testing.T, string) query.Stores { return new(query.MemStores) })
}
