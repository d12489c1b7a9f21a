package sock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Version is the version of the protocol. It changes when an old peer would
// misunderstand; a new field in a JSON payload does not change it.
const Version = 1

const (
	// MaxRequestBytes bounds what a client may send at once.
	MaxRequestBytes = 16 << 20
	// MaxReplyBytes bounds what a server may answer at once.
	MaxReplyBytes = 64 << 20

	headerLen = 5
	helloLen  = 5
)

var magic = [4]byte{'E', 'L', 'S', 'K'}

// ErrProtocol is what a peer that does not keep to the protocol gets.
var ErrProtocol = errors.New("embedlog: bad bytes on the command socket")

// Op is what a client asks for.
type Op uint8

// The numbers are the protocol: they are never given again.
const (
	OpCancel        Op = 1 // ends the request that runs; has no reply of its own
	OpInfo          Op = 2
	OpTopics        Op = 3
	OpCreateTopic   Op = 4
	OpAlterTopic    Op = 5
	OpAddPartitions Op = 6
	OpTrim          Op = 7
	OpDeleteTopic   Op = 8
	OpListOffsets   Op = 9
	OpProducer      Op = 10
	OpProduce       Op = 11
	OpConsumer      Op = 12
	OpPoll          Op = 13
	OpCommit        Op = 14
	OpLag           Op = 15
	OpGroups        Op = 16
	OpResetGroup    Op = 17
	OpDeleteGroup   Op = 18
	OpVerify        Op = 19
	OpBackup        Op = 20
	OpExport        Op = 21
	OpGroup         Op = 22
	OpUsers         Op = 23
	OpSetUser       Op = 24
	OpDeleteUser    Op = 25
	OpACLs          Op = 26
	OpCreateACLs    Op = 27
	OpDeleteACLs    Op = 28
	OpCluster       Op = 29
	OpChangeCluster Op = 30
	OpViews         Op = 31
	OpViewGet       Op = 32
	OpViewOpen      Op = 33
	OpViewRows      Op = 34
	OpViewRebuild   Op = 35
)

// Kind is what a server answers.
type Kind uint8

const (
	KindReply    Kind = 1 // the request is done
	KindError    Kind = 2 // it failed: an Error
	KindProgress Kind = 3 // it goes on: a Progress
)

// Hello exchanges magic and version. Each side writes its own and reads the
// other's; the older version of the two is spoken. Today there is one.
func Hello(rw io.ReadWriter) error {
	if err := sendHello(rw); err != nil {
		return err
	}
	return readHello(rw)
}

// AnswerHello is Hello for the side that was called: whoever says nothing
// sensible learns nothing.
func AnswerHello(rw io.ReadWriter) error {
	if err := readHello(rw); err != nil {
		return err
	}
	return sendHello(rw)
}

// sendHello writes this side's magic and version.
func sendHello(w io.Writer) error {
	_, err := w.Write(append(magic[:len(magic):len(magic)], Version))
	return err
}

func readHello(r io.Reader) error {
	var b [helloLen]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	if [4]byte(b[:4]) != magic {
		return fmt.Errorf("%w: it begins with %q", ErrProtocol, b[:4])
	}
	if b[4] == 0 {
		return fmt.Errorf("%w: version 0", ErrProtocol)
	}
	return nil
}

// WriteFrame writes one frame with one call.
func WriteFrame(w io.Writer, kind uint8, payload []byte) error {
	frame := make([]byte, headerLen, headerLen+len(payload))
	binary.BigEndian.PutUint32(frame, uint32(len(payload)))
	frame[4] = kind
	_, err := w.Write(append(frame, payload...))
	return err
}

// ReadFrame reads one frame of at most limit bytes of payload. io.EOF says that
// the peer hung up between two frames.
func ReadFrame(r io.Reader, limit int) (kind uint8, payload []byte, err error) {
	var head [headerLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n > int64(limit) {
		return 0, nil, fmt.Errorf("%w: a frame of %d bytes, the limit is %d", ErrProtocol, n, limit)
	}
	payload, err = readGrowing(r, int(n))
	return head[4], payload, err
}

// readGrowing reads n bytes and takes memory as they come: a length alone costs
// its sender nothing, so it must not cost us more than a chunk.
func readGrowing(r io.Reader, n int) ([]byte, error) {
	const chunk = 64 << 10
	b := make([]byte, 0, min(n, chunk))
	for len(b) < n {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, min(n, 2*cap(b))), b...)
		}
		got, err := io.ReadFull(r, b[len(b):cap(b)])
		b = b[:len(b)+got]
		if err == io.EOF {
			err = io.ErrUnexpectedEOF // the frame had begun
		}
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}
