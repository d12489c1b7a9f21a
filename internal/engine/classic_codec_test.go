package engine

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// testClassicRecord is what the bytes in the tests below hold.
func testClassicRecord() classicRecord {
	return classicRecord{
		protocolType: "consumer", generation: 5, protocol: "range", leader: "m", millis: 1_700_000_000_000,
		members: []classicRecordMember{
			{id: "m", instance: "i", client: "c", host: "h", rebalance: time.Minute, session: 10 * time.Second, subscription: []byte{1}, assignment: []byte{2, 3}},
			{id: "n", client: "c", host: "h", rebalance: time.Minute, session: 10 * time.Second, subscription: []byte{}, assignment: []byte{}},
		},
	}
}

const classicRecordV3 = "0003 0008 636f6e73756d6572 00000005 0005 72616e6765 0001 6d 0000018bcfe56800 00000002" +
	"0001 6d 0001 69 0001 63 0001 68 0000ea60 00002710 00000001 01 00000002 0203" +
	"0001 6e ffff 0001 63 0001 68 0000ea60 00002710 00000000 00000000"

// The bytes are what Kafka's generated classes write for these fields.
func TestClassicRecordBytes(t *testing.T) {
	v := testClassicRecord()
	if got, want := appendClassicValue(nil, &v), unhex(t, classicRecordV3); !bytes.Equal(got, want) {
		t.Errorf("with members:\n got %x\nwant %x", got, want)
	}
	empty := classicRecord{protocolType: "consumer", generation: 6, millis: 1}
	if got, want := appendClassicValue(nil, &empty), unhex(t, "0003 0008 636f6e73756d6572 00000006 ffff ffff 0000000000000001 00000000"); !bytes.Equal(got, want) {
		t.Errorf("without members:\n got %x\nwant %x", got, want)
	}
}

func TestParseClassicRecords(t *testing.T) {
	want := testClassicRecord()
	v2 := testClassicRecord()
	v2.members[0].instance = ""
	v1 := v2
	v1.millis = -1
	v0 := testClassicRecord()
	v0.millis, v0.members[0].instance = -1, ""
	for i := range v0.members {
		v0.members[i].rebalance = v0.members[i].session
	}
	for _, row := range []struct {
		name, bytes string
		want        classicRecord
		bad         string
	}{
		{"version 0", "0000 0008 636f6e73756d6572 00000005 0005 72616e6765 0001 6d 00000002 0001 6d 0001 63 0001 68 00002710 00000001 01 00000002 0203 0001 6e 0001 63 0001 68 00002710 00000000 00000000", v0, ""},
		{"version 1", "0001 0008 636f6e73756d6572 00000005 0005 72616e6765 0001 6d 00000002 0001 6d 0001 63 0001 68 0000ea60 00002710 00000001 01 00000002 0203 0001 6e 0001 63 0001 68 0000ea60 00002710 00000000 00000000", v1, ""},
		{"version 2", "0002 0008 636f6e73756d6572 00000005 0005 72616e6765 0001 6d 0000018bcfe56800 00000002 0001 6d 0001 63 0001 68 0000ea60 00002710 00000001 01 00000002 0203 0001 6e 0001 63 0001 68 0000ea60 00002710 00000000 00000000", v2, ""},
		{"version 3", classicRecordV3, want, ""},
		{"version 4", "0004 09 636f6e73756d6572 00000005 06 72616e6765 02 6d 0000018bcfe56800 03 02 6d 02 69 02 63 02 68 0000ea60 00002710 02 01 03 0203 00 02 6e 00 02 63 02 68 0000ea60 00002710 01 01 00 00", want, ""},
		{"version 5", strings.Replace(classicRecordV3, "0003", "0005", 1), want, "version"},
		{"cut", classicRecordV3[:len(classicRecordV3)-2], want, "length"},
		{"more behind", classicRecordV3 + "00", want, "length"},
		{"negative generation", strings.Replace(classicRecordV3, "00000005 0005", "ffffffff 0005", 1), want, "generation"},
		{"negative session timeout", strings.Replace(classicRecordV3, "00002710 00000001", "ffffffff 00000001", 1), want, "session"},
		{"a billion members", strings.Replace(classicRecordV3, "00000002"+"0001", "3b9aca00"+"0001", 1), want, "members"},
		{"null bytes", strings.Replace(classicRecordV3, "00000001 01", "ffffffff", 1), want, "length"},
		{"empty", "", want, "length"},
	} {
		got, err := parseClassicValue(unhex(t, row.bytes))
		switch {
		case row.bad == "" && (err != nil || !reflect.DeepEqual(got, row.want)):
			t.Errorf("%s: got %+v, %v, want %+v", row.name, got, err, row.want)
		case row.bad != "" && (!errors.Is(err, errOffsetRecord) || !strings.Contains(err.Error(), row.bad)):
			t.Errorf("%s: got %v, want an error about %q", row.name, err, row.bad)
		}
	}
}

func FuzzClassicRecord(f *testing.F) {
	f.Add(unhex(f, classicRecordV3))
	f.Add(unhex(f, "0004 09 636f6e73756d6572 00000005 06 72616e6765 02 6d 0000018bcfe56800 02 02 6d 02 69 02 63 02 68 0000ea60 00002710 02 01 03 0203 00 00"))
	f.Add(unhex(f, "0000 0000 00000005 ffff ffff 00000000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parseClassicValue(b)
		if err != nil {
			return
		}
		again, err := parseClassicValue(appendClassicValue(nil, &v))
		if v.millis < 0 {
			again.millis = v.millis // old versions do not have it
		}
		if err != nil || !reflect.DeepEqual(again, v) {
			t.Fatalf("%x: %+v becomes %+v, %v", b, v, again, err)
		}
	})
}
