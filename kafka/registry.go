package kafka

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// api is one API key: the versions that are served and what handles a request.
type api struct {
	key      int16
	min, max int16
	// advertised is the lowest version that ApiVersions names: min, but for exceptions
	// that clients need (see advertise).
	advertised int16
	// flexible is the first version whose headers have tagged fields.
	flexible int16
	// borrows says that the handler keeps nothing of the frame, so that its memory can
	// be used again. What kmsg decodes has []byte fields that are parts of the frame.
	borrows bool
	// handle is nil for Produce, which may be answered later: see conn.serveProduce.
	handle func(r *request, body []byte) error
}

// apis are all API keys that are served. Files named for their key register
// themselves; nothing changes afterwards.
var apis [128]*api

// apiOf is what handles the key, or nil.
func apiOf(key int16) *api {
	if key < 0 || int(key) >= len(apis) {
		return nil
	}
	return apis[key]
}

// register serves versions min to max of the API whose request is Q. The handler
// gets the request decoded and returns the response, or nil when there is to be
// none; an error closes the connection. ResponseKind makes a response of the right
// version.
//
// A request whose arrays claim more than its bytes can hold, or too much, never
// gets to kmsg, which allocates what an array claims: see shape.
func register[Q kmsg.Request](min, max int16, handle func(*request, Q) (kmsg.Response, error)) {
	var none Q
	key := none.Key()
	shapes := newShapes(key, max)
	add(&api{key: key, min: min, max: max, handle: func(r *request, body []byte) error {
		need, err := shapes.at(r.version).check(body)
		if err != nil {
			return r.failed(err)
		}
		if err := r.reserve(need); err != nil {
			return err
		}
		q := kmsg.RequestForKey(key).(Q)
		q.SetVersion(r.version)
		if err := q.ReadFrom(body); err != nil {
			return r.failed(err)
		}
		resp, err := handle(r, q)
		if err != nil {
			return r.failed(err)
		}
		if resp == nil {
			r.out.drop()
			return nil
		}
		r.respond(resp)
		return nil
	}})
}

// registerRaw serves an API whose messages are coded by hand. The handler puts the
// response's body into r.out, and keeps no part of the request's.
func registerRaw(key, min, max int16, handle func(r *request, body []byte) error) {
	add(&api{key: key, min: min, max: max, borrows: true, handle: handle})
}

func add(a *api) {
	if apis[a.key] != nil {
		panic(fmt.Sprintf("kafka: API key %d is registered twice", a.key))
	}
	a.advertised, a.flexible = a.min, a.max+1
	for v := a.max; v >= 0; v-- {
		q := kmsg.RequestForKey(a.key)
		q.SetVersion(v)
		if q.IsFlexible() {
			a.flexible = v
		}
	}
	if low, ok := advertise[a.key]; ok {
		a.advertised = low
	}
	apis[a.key] = a
}

// advertise are lowest versions that ApiVersions names although they are refused.
var advertise = map[int16]int16{
	// librdkafka before 2.11 decides by these which features a broker has: without
	// version 0 of Produce it sends gzip, snappy and lz4 uncompressed (KAFKA-18659),
	// without that of JoinGroup it has no groups (KAFKA-19444).
	0:  0,
	11: 0,
	// With 1 alone librdkafka says that SASL handshakes are not supported.
	17: 0,
}
