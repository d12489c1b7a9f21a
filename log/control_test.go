package log

import (
	"bytes"
	"testing"
)

func TestControlRecords(t *testing.T) {
	key, value := EndTxnMarker(false, -2)
	if !bytes.Equal(key, unhex(t, "0000 0000")) || !bytes.Equal(value, unhex(t, "0000 fffffffe")) {
		t.Errorf("abort marker: key %x, value %x", key, value)
	}
	for _, c := range []struct {
		name, key, value string
		want             ControlType
		epoch            int32
		bad              bool
	}{
		{"abort", "0000 0000", "0000 00000007", ControlAbort, 7, false},
		{"commit", "0000 0001", "0000 00000007", ControlCommit, 7, false},
		{"commit of a later version", "0001 0001 ff", "0001 00000007 ff", ControlCommit, 7, false},
		{"leader change", "0000 0002", "", ControlLeaderChange, 0, false},
		{"voters", "0000 0006", "00", ControlKRaftVoters, 0, false},
		{"a later type", "0000 0007", "00", ControlUnknown, 0, false},
		{"no key", "", "0000 00000007", ControlUnknown, 0, true},
		{"key cut off", "0000 00", "0000 00000007", ControlUnknown, 0, true},
		{"negative version", "ffff 0001", "0000 00000007", ControlUnknown, 0, true},
		{"value cut off", "0000 0001", "0000 000000", ControlUnknown, 0, true},
		{"value of a negative version", "0000 0001", "8000 00000007", ControlUnknown, 0, true},
	} {
		got, epoch, err := ParseControl(&Record{Key: unhex(t, c.key), Value: unhex(t, c.value)})
		if got != c.want || epoch != c.epoch || (err != nil) != c.bad {
			t.Errorf("%s: got %v, %d, %v; want %v, %d, error %t", c.name, got, epoch, err, c.want, c.epoch, c.bad)
		}
	}
}
