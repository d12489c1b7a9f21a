package prom_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
	"github.com/x/embedlog/prom"
	"github.com/x/embedlog/query"
)

var update = flag.Bool("update", false, "rewrite docs/metrics.md")

// gather returns the value of each metric, its labels in braces; a histogram's is
// how often something was observed.
func gather(t *testing.T, m *prom.Metrics) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(m); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, one := range f.GetMetric() {
			var labels []string
			for _, l := range one.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			value := one.GetGauge().GetValue() + one.GetCounter().GetValue() + float64(one.GetHistogram().GetSampleCount())
			got[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = value
		}
	}
	return got
}

// use produces ten records, reads them in a group, and fails once.
func use(t *testing.T, db *embedlogtest.DB) {
	t.Helper()
	ctx := context.Background()
	topic, err := db.EnsureTopic(ctx, "orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := topic.Produce(ctx, embedlog.Record{Key: []byte("k"), Value: []byte("four")}); err != nil {
			t.Fatal(err)
		}
	}
	c, err := db.Consumer(&embedlog.ConsumerConfig{Group: "billing", Topics: []string{"orders"}})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for rec, err := range c.Records(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 7 {
			c.Mark(rec)
			break
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := topic.Produce(ctx, embedlog.Record{Value: make([]byte, 2<<20)}); !errors.Is(err, embedlog.ErrRecordTooLarge) {
		t.Fatal(err)
	}
}

func TestMetrics(t *testing.T) {
	m := prom.New()
	var own int
	hooks := m.Hooks(&embedlog.Hooks{
		OnProduce: func(string, int32, int, int64, time.Duration, error) { own++ },
	})
	db := embedlogtest.Open(t, &embedlogtest.Options{DB: embedlog.Options{Hooks: hooks}})
	m.Watch(db.DB)
	use(t, db)
	if own < 11 {
		t.Errorf("the program's own hook was called %d times", own)
	}
	got := gather(t, m)
	for name, want := range map[string]float64{
		"embedlog_produce_records_total{topic=orders}":                        10,
		"embedlog_produce_bytes_total{topic=orders}":                          50,
		"embedlog_produce_errors_total{topic=orders}":                         1,
		"embedlog_produce_seconds{topic=orders}":                              11,
		"embedlog_high_watermark{partition=0,topic=orders}":                   10,
		"embedlog_durable_offset{partition=0,topic=orders}":                   10,
		"embedlog_log_start_offset{partition=0,topic=orders}":                 0,
		"embedlog_consumer_group_lag{group=billing,partition=0,topic=orders}": 3,
		"embedlog_failed_partitions{}":                                        0,
		"embedlog_group_members{group=billing}":                               0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (there: %t), want %v", name, v, ok, want)
		}
	}
	for _, name := range []string{
		"embedlog_fsync_seconds{topic=orders}", "embedlog_group_commits_total{group=billing}", "embedlog_group_commit_seconds{}",
		"embedlog_group_rebalances_total{group=billing}", "embedlog_bytes{}", "embedlog_partition_bytes{partition=0,topic=orders}",
		"embedlog_fetch_bytes_total{topic=orders}",
	} {
		if got[name] <= 0 {
			t.Errorf("%s is %v", name, got[name])
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if after := gather(t, m); after["embedlog_produce_records_total{topic=orders}"] != 10 {
		t.Errorf("closed: %v", after)
	}
}

// docs/metrics.md is the table of what there is.
func TestDocs(t *testing.T) {
	const file = "../docs/metrics.md"
	descs := make(chan *prometheus.Desc, 100)
	prom.New().Describe(descs)
	close(descs)
	var b strings.Builder
	b.WriteString("# Metrics\n\nWhat package `prom` gives Prometheus. Times are in seconds, sizes in bytes, counters end in `_total`.\n\n| metric | labels | what it is |\n|---|---|---|\n")
	for d := range descs {
		// A Desc shows what it is only as text.
		text := d.String()
		name, help, labels := between(text, `fqName: "`, `"`), between(text, `help: "`, `", `), between(text, "variableLabels: {", "}")
		if name == "" || help == "" {
			t.Fatalf("not understood: %s", text)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, strings.ReplaceAll(labels, ",", ", "), help)
	}
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil || string(have) != b.String() {
		t.Errorf("%s is not what there is (error %v): go test ./prom -update", file, err)
	}
}

func between(s, before, after string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, _ = strings.Cut(s, after)
	return s
}

func Example() {
	m := prom.New()
	db, err := embedlog.OpenMemory(&embedlog.Options{Hooks: m.Hooks(nil)})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	m.Watch(db)
	registry := prometheus.NewRegistry()
	registry.MustRegister(m) // serve it with promhttp

	topic, err := db.EnsureTopic(context.Background(), "orders", nil)
	if err != nil {
		panic(err)
	}
	if _, err := topic.Produce(context.Background(), embedlog.Record{Value: []byte("450")}); err != nil {
		panic(err)
	}
	families, err := registry.Gather()
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		if f.GetName() == "embedlog_produce_records_total" {
			fmt.Println(f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	// Output: 1
}

func TestViews(t *testing.T) {
	m := prom.New()
	db := embedlogtest.Open(t, nil)
	m.Watch(db.DB)
	topic, err := db.EnsureTopic(t.Context(), "orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := query.Materialize("spent", query.Count(query.From(topic, codec.String, codec.JSON[int]{})))
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"1", "2", "x"} {
		if _, err := topic.Produce(t.Context(), embedlog.Record{Key: []byte("k"), Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Graph().CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := gather(t, m)
	for name, want := range map[string]float64{
		"embedlog_view_up{graph=spent}": 1, "embedlog_view_records_total{graph=spent}": 3, "embedlog_view_dead_letters_total{graph=spent}": 1,
		"embedlog_view_rows{graph=spent,view=spent}": 1, "embedlog_view_lag{graph=spent,partition=0,topic=orders}": 0,
		"embedlog_view_behind_seconds{graph=spent,partition=0,topic=orders}": 0, "embedlog_view_late_total{graph=spent}": 0, "embedlog_view_restarts_total{graph=spent}": 0,
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s is %v, %v; want %v", name, value, ok, want)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	for name := range gather(t, m) {
		if strings.HasPrefix(name, "embedlog_view_") {
			t.Errorf("closed: %s", name)
		}
	}
}
