package engine

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The bytes are what Kafka's generated classes write for these fields.
func TestOffsetRecordBytes(t *testing.T) {
	id := TopicID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	for _, row := range []struct {
		name string
		got  []byte
		want string
	}{
		{"offset key", appendOffsetKey(nil, &offsetKey{offsetKeyVersion, "billing", "orders", 258}),
			"0001 0007 62696c6c696e67 0006 6f7264657273 00000102"},
		{"group key", appendOffsetKey(nil, &offsetKey{version: groupKeyVersion, group: "g"}), "0003 0001 67"},
		{"classic key", appendOffsetKey(nil, &offsetKey{version: classicKeyVersion, group: "g"}), "0002 0001 67"},
		{"offset", appendOffsetValue(nil, &offsetValue{offset: 42, leaderEpoch: 7, metadata: "m", commitMillis: 1_700_000_000_000, topicID: id}),
			"0004 000000000000002a 00000007 02 6d 0000018bcfe56800 01 00 10 000102030405060708090a0b0c0d0e0f"},
		{"offset without topic id", appendOffsetValue(nil, &offsetValue{offset: 1, leaderEpoch: -1, commitMillis: 2}),
			"0004 0000000000000001 ffffffff 01 0000000000000002 00"},
		{"epoch", appendGroupValue(nil, groupValue{9, -1}), "0000 00000009 00"},
		{"epoch of a group that nobody uses", appendGroupValue(nil, groupValue{9, 258}), "0000 00000009 01 904e 08 0000000000000102"},
	} {
		if want := unhex(t, row.want); !bytes.Equal(row.got, want) {
			t.Errorf("%s: got %x, want %x", row.name, row.got, want)
		}
	}
}

func TestParseOffsetValues(t *testing.T) {
	id := TopicID{15: 1}
	want := offsetValue{offset: 42, leaderEpoch: 7, metadata: "m", commitMillis: 5, topicID: id}
	old := want
	old.leaderEpoch, old.topicID = -1, TopicID{}
	said := want
	said.epochSaid = true
	old3 := want
	old3.topicID = TopicID{}
	for _, row := range []struct {
		name, bytes string
		want        offsetValue
		bad         string
	}{
		{"version 0", "0000 000000000000002a 0001 6d 0000000000000005", old, ""},
		{"version 1", "0001 000000000000002a 0001 6d 0000000000000005 0000000000000009", old, ""},
		{"version 2", "0002 000000000000002a 0001 6d 0000000000000005", old, ""},
		{"version 3", "0003 000000000000002a 00000007 0001 6d 0000000000000005", old3, ""},
		{"version 4", "0004 000000000000002a 00000007 02 6d 0000000000000005 01 00 10 00000000000000000000000000000001", want, ""},
		{"an epoch that a client said", "0004 000000000000002a 00000007 02 6d 0000000000000005 02 00 10 00000000000000000000000000000001 904e 00", said, ""},
		{"a mark of an epoch with something in it", "0004 000000000000002a 00000007 02 6d 0000000000000005 01 904e 01 00", want, "mark"},
		{"a tagged field that is not known", "0004 000000000000002a 00000007 02 6d 0000000000000005 02 00 10 00000000000000000000000000000001 05 01 ff", want, ""},
		{"version 5", "0005 000000000000002a 00000007 02 6d 0000000000000005 00", want, "version"},
		{"cut", "0004 000000000000002a 00000007 02 6d 00000000000000", want, "length"},
		{"more behind", "0004 000000000000002a 00000007 02 6d 0000000000000005 00 00", want, "length"},
		{"null metadata", "0004 000000000000002a 00000007 00 0000000000000005 00", want, "length"},
		{"negative offset", "0004 fffffffffffffffe 00000007 02 6d 0000000000000005 00", want, "offset"},
		{"short topic id", "0004 000000000000002a 00000007 02 6d 0000000000000005 01 00 02 0001", want, "topic id"},
		{"a tag twice", "0004 000000000000002a 00000007 02 6d 0000000000000005 02 05 00 05 00", want, "order"},
		{"a billion tags", "0004 000000000000002a 00000007 02 6d 0000000000000005 80a8d6b907", want, "number"},
		{"many tags", "0004 000000000000002a 00000007 02 6d 0000000000000005 ffffff7f", want, "number"},
		{"a long varint", "0004 000000000000002a 00000007 02 6d 0000000000000005 8000", want, "varint"},
		{"empty", "", want, "length"},
	} {
		got, err := parseOffsetValue(unhex(t, row.bytes))
		switch {
		case row.bad == "" && (err != nil || got != row.want):
			t.Errorf("%s: got %+v, %v, want %+v", row.name, got, err, row.want)
		case row.bad != "" && (!errors.Is(err, errOffsetRecord) || !strings.Contains(err.Error(), row.bad)):
			t.Errorf("%s: got %v, want an error about %q", row.name, err, row.bad)
		}
	}
}

func TestParseGroupValues(t *testing.T) {
	for _, row := range []struct {
		name, bytes string
		want        groupValue
		bad         string
	}{
		{"no field", "0000 00000009 00", groupValue{9, -1}, ""},
		{"unused", "0000 00000009 01 904e 08 0000000000000102", groupValue{9, 258}, ""},
		{"a field that is not known", "0000 00000009 01 05 01 ff", groupValue{9, -1}, ""},
		{"a short time", "0000 00000009 01 904e 07 00000000000001", groupValue{}, "time"},
		{"a negative time", "0000 00000009 01 904e 08 ffffffffffffffff", groupValue{}, "time"},
		{"a negative epoch", "0000 ffffffff 00", groupValue{}, "epoch"},
		{"cut", "0000 00000009 01 904e 08 00", groupValue{}, "length"},
	} {
		got, err := parseGroupValue(unhex(t, row.bytes))
		switch {
		case row.bad == "" && (err != nil || got != row.want):
			t.Errorf("%s: got %+v, %v, want %+v", row.name, got, err, row.want)
		case row.bad != "" && (!errors.Is(err, errOffsetRecord) || !strings.Contains(err.Error(), row.bad)):
			t.Errorf("%s: got %v, want an error about %q", row.name, err, row.bad)
		}
	}
}

func TestParseOffsetKeys(t *testing.T) {
	for _, row := range []struct {
		name, bytes string
		want        offsetKey
		bad         bool
	}{
		{"version 0", "0000 0001 67 0001 74 00000001", offsetKey{1, "g", "t", 1}, false},
		{"version 1", "0001 0001 67 0001 74 00000001", offsetKey{1, "g", "t", 1}, false},
		{"one from the future", "0010 ffffff", offsetKey{version: 16}, false},
		{"negative version", "ffff", offsetKey{}, true},
		{"negative partition", "0001 0001 67 0001 74 ffffffff", offsetKey{}, true},
		{"negative length", "0003 ffff 67", offsetKey{}, true},
		{"no text", "0003 0001 ff", offsetKey{}, true},
	} {
		if got, err := parseOffsetKey(unhex(t, row.bytes)); (err != nil) != row.bad || !row.bad && got != row.want {
			t.Errorf("%s: got %+v, %v, want %+v", row.name, got, err, row.want)
		}
	}
}

// Java: Utils.abs("billing".hashCode()) % 50 and so on.
func TestOffsetsPartitionOf(t *testing.T) {
	for _, row := range []struct {
		group string
		n     int
		want  int32
	}{
		{"", 50, 0},
		{"g", 50, 3},                   // 103
		{"ab", 50, 5},                  // 97*31+98 = 3105
		{"polygenelubricants", 50, 0},  // -2^31
		{"\U0001F600", 1000, 899},      // surrogates d83d de00: 55357*31+56832 = 1772899
		{"DESIGNING WORKHOUSES", 7, 0}, // -2^31
		{"billing", 50, 9},             // -109829509
		{"grüße", 50, 23},
	} {
		if got := offsetsPartitionOf(row.group, row.n); got != row.want {
			t.Errorf("partition of %q: got %d, want %d", row.group, got, row.want)
		}
	}
}

func FuzzOffsetRecords(f *testing.F) {
	f.Add(unhex(f, "0001 0007 62696c6c696e67 0006 6f7264657273 00000102"), unhex(f, "0004 000000000000002a 00000007 02 6d 0000018bcfe56800 01 00 10 000102030405060708090a0b0c0d0e0f"))
	f.Add(unhex(f, "0003 0001 67"), unhex(f, "0000 00000009 00"))
	f.Add(unhex(f, "0003 0001 67"), unhex(f, "0000 00000009 01 904e 08 0000000000000102"))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if k, err := parseOffsetKey(key); err == nil && k.version <= groupKeyVersion {
			again, err := parseOffsetKey(appendOffsetKey(nil, &k))
			if err != nil || again != k {
				t.Fatalf("key %x: %+v becomes %+v, %v", key, k, again, err)
			}
		}
		if v, err := parseOffsetValue(value); err == nil {
			again, err := parseOffsetValue(appendOffsetValue(nil, &v))
			if err != nil || again != v {
				t.Fatalf("value %x: %+v becomes %+v, %v", value, v, again, err)
			}
		}
		if v, err := parseGroupValue(value); err == nil {
			if again, err := parseGroupValue(appendGroupValue(nil, v)); err != nil || again != v {
				t.Fatalf("value %x: %+v becomes %+v, %v", value, v, again, err)
			}
		}
	})
}
