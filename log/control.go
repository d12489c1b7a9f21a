package log

import (
	"encoding/binary"
	"errors"
)

// ControlType is what a control record tells readers.
type ControlType int16

// Kafka's control records. Only the first two end transactions; the others belong
// to Kafka's own metadata log and are passed through.
const (
	ControlAbort          ControlType = 0
	ControlCommit         ControlType = 1
	ControlLeaderChange   ControlType = 2
	ControlSnapshotHeader ControlType = 3
	ControlSnapshotFooter ControlType = 4
	ControlKRaftVersion   ControlType = 5
	ControlKRaftVoters    ControlType = 6
	ControlUnknown        ControlType = -1
	controlKeyLen                     = 4
	endTxnValueLen                    = 6
	controlVersion        int16       = 0
)

// EndTxnMarker makes the key and value of the record that ends a transaction. Its
// batch has Control and Transactional set and BaseSequence -1, and holds no other.
//
//	key    0  2  version: 0      value  0  2  version: 0
//	       2  2  type                   2  4  coordinator epoch
func EndTxnMarker(commit bool, coordinatorEpoch int32) (key, value []byte) {
	b := make([]byte, controlKeyLen+endTxnValueLen)
	if commit {
		b[3] = byte(ControlCommit)
	}
	binary.BigEndian.PutUint32(b[controlKeyLen+2:], uint32(coordinatorEpoch))
	return b[:controlKeyLen:controlKeyLen], b[controlKeyLen:]
}

// ParseControl reads a record of a control batch. A type that is not known is
// ControlUnknown and no error: readers pass over it, as Kafka's do. The epoch is
// that of a transaction's end, otherwise 0.
func ParseControl(rec *Record) (t ControlType, coordinatorEpoch int32, err error) {
	be := binary.BigEndian
	if len(rec.Key) < controlKeyLen || int16(be.Uint16(rec.Key)) < controlVersion {
		return ControlUnknown, 0, errors.New("control record without a type")
	}
	// Later versions add fields behind these.
	t = ControlType(be.Uint16(rec.Key[2:]))
	switch t {
	case ControlAbort, ControlCommit:
		if len(rec.Value) < endTxnValueLen || int16(be.Uint16(rec.Value)) < controlVersion {
			return ControlUnknown, 0, errors.New("transaction marker without an epoch")
		}
		return t, int32(be.Uint32(rec.Value[2:])), nil
	case ControlLeaderChange, ControlSnapshotHeader, ControlSnapshotFooter, ControlKRaftVersion, ControlKRaftVoters:
		return t, 0, nil
	}
	return ControlUnknown, 0, nil
}
