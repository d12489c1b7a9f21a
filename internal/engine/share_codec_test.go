package engine

import (
	"bytes"
	"encoding/hex"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
)

func TestShareSnapshotBytes(t *testing.T) {
	key := shareKey{shareSnapshotKeyVersion, "q", topicPart{TopicID{1, 15: 2}, 3}}
	for _, row := range []struct {
		name, want string
		got        []byte
	}{
		{"key", "0000 0001 71 01000000000000000000000000000002 00000003", appendShareKey(nil, &key)},
		{"value", "0000 00000007 00000001 00000002 0000000000000005 000000000000000a 000000000000000b 02 " +
			"0000000000000006 0000000000000008 02 0001 00 01 00 04 00000003",
			appendShareSnapshot(nil, &shareSnapshot{7, 1, 2, 5, 10, 11, 3, []shareBatch{{6, 8, shareAccepted, 1}}})},
		{"value without batches", "0000 00000000 00000000 ffffffff 0000000000000005 0000000000000000 0000000000000000 01 00",
			appendShareSnapshot(nil, &shareSnapshot{leaderEpoch: -1, start: 5, done: -1})},
		{"settings key", "2710 0001 71", appendShareKey(nil, &shareKey{version: shareSettingsKeyVersion, group: "q"})},
		{"settings", "0000 02 0161 0131 0162 00", appendShareSettings(nil, map[string]string{"b": "", "a": "1"})},
	} {
		if got := hex.EncodeToString(row.got); got != strings.ReplaceAll(row.want, " ", "") {
			t.Errorf("%s: got %s, want %s", row.name, got, row.want)
		}
	}
}

func TestShareRecordsAreRefused(t *testing.T) {
	value := func(change func(*shareSnapshot)) []byte {
		s := shareSnapshot{snapshotEpoch: 1, start: 5, done: -1, batches: []shareBatch{{6, 8, shareAccepted, 1}, {9, 9, shareAvailable, 2}}}
		change(&s)
		return appendShareSnapshot(nil, &s)
	}
	whole := value(func(*shareSnapshot) {})
	for name, b := range map[string][]byte{
		"empty": nil, "cut": whole[:len(whole)-1], "longer": append(bytes.Clone(whole), 0),
		"start":        value(func(s *shareSnapshot) { s.start = -1 }),
		"below start":  value(func(s *shareSnapshot) { s.batches[0].first = 4 }),
		"overlap":      value(func(s *shareSnapshot) { s.batches[1].first, s.batches[1].last = 8, 8 }),
		"backwards":    value(func(s *shareSnapshot) { s.batches[1].last = 8 }),
		"acquired":     value(func(s *shareSnapshot) { s.batches[1].state = shareAcquired }),
		"count":        value(func(s *shareSnapshot) { s.batches[1].count = -1 }),
		"largest":      value(func(s *shareSnapshot) { s.batches[1].last = 1<<63 - 1 }),
		"many batches": append(bytes.Clone(whole[:38]), 0xff, 0xff, 0xff, 0xff, 0x0f),
	} {
		if _, err := parseShareSnapshot(b); !errors.Is(err, errOffsetRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := parseShareSnapshot(whole); err != nil {
		t.Errorf("as it should be: %v", err)
	}
	for name, b := range map[string]string{"order": "0000020162000161 00", "twice": "00000201610001 6100", "cut": "000001", "version": "000100"} {
		raw, _ := hex.DecodeString(strings.ReplaceAll(b, " ", ""))
		if _, err := parseShareSettings(raw); !errors.Is(err, errOffsetRecord) {
			t.Errorf("settings %s: %v", name, err)
		}
	}
}

// What the decoders take, the encoders give back; nothing panics.
func FuzzShareRecord(f *testing.F) {
	key := shareKey{shareSnapshotKeyVersion, "q", topicPart{TopicID{1}, 3}}
	f.Add(appendShareKey(nil, &key), appendShareSnapshot(nil, &shareSnapshot{7, 1, 2, 5, 10, 11, 3, []shareBatch{{6, 8, shareAccepted, 1}, {10, 20, shareAvailable, 4}}}))
	key = shareKey{version: shareSettingsKeyVersion, group: "q"}
	f.Add(appendShareKey(nil, &key), appendShareSettings(nil, map[string]string{"a": "b"}))
	f.Fuzz(func(t *testing.T, k, v []byte) {
		explainShare(k, v)
		if key, err := parseShareKey(k); err == nil && (key.version == shareSnapshotKeyVersion || key.version == shareSettingsKeyVersion) {
			if again := appendShareKey(nil, &key); !bytes.Equal(again, k) {
				t.Errorf("key %x became %x", k, again)
			}
		}
		if s, err := parseShareSnapshot(v); err == nil {
			if again, err := parseShareSnapshot(appendShareSnapshot(nil, &s)); err != nil || !reflect.DeepEqual(again, s) {
				t.Errorf("%+v became %+v, %v", s, again, err)
			}
			st := restoreShare(s.start, s.batches, 1<<62, 5)
			checkShareState(t, &st)
		}
		if set, err := parseShareSettings(v); err == nil {
			if again, err := parseShareSettings(appendShareSettings(nil, set)); err != nil || !maps.Equal(again, set) {
				t.Errorf("%v became %v, %v", set, again, err)
			}
		}
	})
}

// checkShareState says what must be true of every state.
func checkShareState(t testing.TB, s *shareState) {
	t.Helper()
	at := s.start
	for i := range s.runs {
		r := &s.runs[i]
		switch {
		case r.end <= at:
			t.Fatalf("run %d ends at %d, begins at %d", i, r.end, at)
		case i == 0 && r.state.done():
			t.Fatalf("the start %d has not passed what is done", s.start)
		case i > 0 && s.runs[i-1].shareRecord == r.shareRecord:
			t.Fatalf("runs %d and %d are alike: %+v", i-1, i, *r)
		case (r.holder != "") != (r.state == shareAcquired || r.state == shareSettling):
			t.Fatalf("run %d: %+v", i, *r)
		}
		at = r.end
	}
}
