// Package prom gives Prometheus the metrics of a database.
//
//	m := prom.New()
//	db, err := embedlog.Open(dir, &embedlog.Options{Hooks: m.Hooks(nil)})
//	...
//	m.Watch(db)
//	prometheus.MustRegister(m)
//
// What happens (produced, fetched, committed, synced) is counted by hooks as it
// happens; what is (offsets, sizes, lag) is read when somebody collects. One
// Metrics is for one database. docs/metrics.md lists the metrics.
//
// It is a package of its own because a program that does not want it should not
// carry the Prometheus client.
package prom
