package query

import (
	"errors"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
)

// A graph whose source is deleted stops, and does not say that somebody has closed it.
func TestSourceIsDeleted(t *testing.T) {
	db := embedlogtest.Open(t, nil)
	top := topicWith(t, db.DB, "a", "one")
	v, err := Materialize("g", TableFrom(top, codec.String, codec.String))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := v.Get(t.Context(), "k"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := db.DeleteTopic(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	for v.Graph().Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if err := v.Graph().Err(); !errors.Is(err, embedlog.ErrUnknownTopic) || errors.Is(err, embedlog.ErrClosed) {
		t.Errorf("it has stopped with %v", err)
	}
}
