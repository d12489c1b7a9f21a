package engine

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// The bytes are what Kafka's generated classes write for these fields.
func TestConsumerProtocolBytes(t *testing.T) {
	owned := []namedParts{{"a", []int32{0, 2}}}
	topics := []string{"a", "bb"}
	for _, row := range []struct {
		name, bytes string
		want        consumerSubscription
		bad         string
	}{
		{"version 0", "0000 00000002 0001 61 0002 6262 00000001 09", consumerSubscription{0, topics, nil, ""}, ""},
		{"version 1", "0001 00000002 0001 61 0002 6262 00000001 09 00000001 0001 61 00000002 00000000 00000002", consumerSubscription{1, topics, owned, ""}, ""},
		{"version 1 without what is owned", "0001 00000002 0001 61 0002 6262 00000001 09", consumerSubscription{1, topics, nil, ""}, ""},
		{"version 2", "0002 00000002 0001 61 0002 6262 00000001 09 00000001 0001 61 00000002 00000000 00000002 00000007", consumerSubscription{2, topics, owned, ""}, ""},
		{"version 3", "0003 00000002 0001 61 0002 6262 00000001 09 00000001 0001 61 00000002 00000000 00000002 00000007 0001 72", consumerSubscription{3, topics, owned, "r"}, ""},
		{"version 9 and more fields", "0009 00000002 0001 61 0002 6262 00000001 09 00000001 0001 61 00000002 00000000 00000002 00000007 0001 72 1234", consumerSubscription{3, topics, owned, "r"}, ""},
		{"nulls", "0003 ffffffff ffffffff ffffffff 00000007 ffff", consumerSubscription{version: 3}, ""},
		{"negative version", "ffff 00000000 ffffffff", consumerSubscription{}, "version"},
		{"cut", "0000 00000002 0001 61 00", consumerSubscription{}, "length"},
		{"a billion topics", "0000 3b9aca00 0001 61", consumerSubscription{}, "array"},
		{"a billion owned", "0001 00000000 ffffffff 3b9aca00 0001", consumerSubscription{}, "array"},
		{"negative array", "0000 fffffffe", consumerSubscription{}, "array"},
		{"a gigabyte of user data", "0000 00000000 40000000 00", consumerSubscription{}, "length"},
		{"no text", "0000 00000001 0001 ff ffffffff", consumerSubscription{}, "string"},
		{"empty", "", consumerSubscription{}, "length"},
	} {
		got, err := parseConsumerSubscription(unhex(t, row.bytes))
		if row.bad == "" && err != nil || !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s: got %+v, %v, want %+v", row.name, got, err, row.want)
		}
		if row.bad != "" && (!errors.Is(err, errConsumerProtocol) || !strings.Contains(err.Error(), row.bad)) {
			t.Errorf("%s: got %v, want an error about %q", row.name, err, row.bad)
		}
	}
	const assignment = "0001 00000001 0001 61 00000002 00000000 00000002 ffffffff"
	if got, want := appendConsumerAssignment(nil, 1, owned), unhex(t, assignment); !bytes.Equal(got, want) {
		t.Errorf("assignment: got %x, want %x", got, want)
	}
	for _, row := range []struct {
		name, bytes string
		want        []namedParts
		bad         bool
	}{
		{"nothing", "", nil, false},
		{"partitions", assignment, owned, false},
		{"without user data", "0001 00000001 0001 61 00000002 00000000 00000002", owned, false},
		{"cut", "0001 00000001 0001 61 00000002 00000000", nil, true},
	} {
		if got, err := parseConsumerAssignment(unhex(t, row.bytes)); (err != nil) != row.bad || !reflect.DeepEqual(got, row.want) {
			t.Errorf("assignment, %s: got %+v, %v, want %+v", row.name, got, err, row.want)
		}
	}
}

func FuzzConsumerProtocol(f *testing.F) {
	f.Add(unhex(f, "0003 00000002 0001 61 0002 6262 00000001 09 00000001 0001 61 00000002 00000000 00000002 00000007 0001 72"))
	f.Add(unhex(f, "0001 00000001 0001 61 00000002 00000000 00000002 ffffffff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseConsumerSubscription(b); err == nil && (s.version < 0 || s.version > consumerProtocolVersion) {
			t.Fatalf("%x: version %d", b, s.version)
		}
		list, err := parseConsumerAssignment(b)
		if err != nil {
			return
		}
		again, err := parseConsumerAssignment(appendConsumerAssignment(nil, 0, list))
		if err != nil || !reflect.DeepEqual(again, list) {
			t.Fatalf("%x: %+v becomes %+v, %v", b, list, again, err)
		}
	})
}

// A static member that comes back is compared with what it was given in time that grows
// with both, not with their product: the group is locked meanwhile.
func BenchmarkMustRevoke(b *testing.B) {
	var all []int32
	for i := range int32(100_000) {
		all = append(all, i)
	}
	metadata := subscription(1, []string{"orders"}, namedParts{"orders", all})
	assignment := appendConsumerAssignment(nil, 1, []namedParts{{"orders", all}})
	for b.Loop() {
		if mustRevoke(ConsumerProtocolType, metadata, assignment) {
			b.Fatal("it was given all")
		}
	}
}
