package raftrepl

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/x/embedlog/internal/engine"
)

// Whoever dials says who it is and whom it means; the other end answers in kind, or refuses in words.
// Both messages are a length (uint16) and fixed fields, big-endian:
//
//	hello    "embR", lowest and highest version, flavour, cluster id [16], from, to uint32, directory id [16],
//	         boot, instance, nonce, last uint64, advertised address, token, cluster's name: each a length byte and bytes
//	welcome  "embR", version, reason, cluster id [16], node uint32, directory id [16], boot, instance uint64, words
//
// A cluster id of zeros is of a node that does not know it yet, and to is 0 when it knows an address alone.
const (
	protocolVersion = 1
	helloMagic      = "embR"
	maxHelloBytes   = 1 << 10
)

// flavour is what a connection is for.
type flavour uint8

const (
	flavourMain flavour = iota
	flavourInstall
	flavours
	// flavourKnock asks who is there, and says where the one who asks is: no connection stays.
	flavourKnock = flavours
)

func (f flavour) String() string {
	if f == flavourInstall {
		return "install"
	}
	return "main"
}

type hello struct {
	low, high uint8
	flavour   flavour
	cluster   engine.TopicID
	from, to  int32
	directory engine.TopicID
	// boot counts the runs of the node, 0 when nobody counts. instance is of this run: another one
	// says that the last run's connections are dead.
	boot, instance uint64
	// nonce names this connection; last is that of the last one that was up here, and is not any more.
	nonce, last uint64
	advertise   string
	token       string
	// name is the cluster's, as the node was configured: without certificates nothing else tells two new
	// clusters apart. Empty is not said.
	name string
}

type welcome struct {
	version   uint8
	reason    RefusalReason // 0: welcome
	cluster   engine.TopicID
	node      int32
	directory engine.TopicID
	boot      uint64
	instance  uint64
	words     string
}

// RefusalReason is why a peer is not talked to.
type RefusalReason uint8

const (
	RefusedProtocol    RefusalReason = 1 + iota // it does not speak as peers do
	RefusedVersion                              // none of its versions is spoken here
	RefusedCluster                              // it is of another cluster
	RefusedCertificate                          // its certificate is not its own
	RefusedNode                                 // it is not whom it was taken for, or nobody that is known
	RefusedDirectory                            // its directory is not the node's: a copy, or restored
	RefusedToken                                // it wants to join, with a wrong token
	RefusedDuplicate                            // there is a connection already
	RefusedClosing                              // the node leaves
	RefusedRemoved                              // it was removed from the cluster
	refusalReasons
)

func (r RefusalReason) String() string {
	names := [...]string{"welcome", "protocol", "version", "cluster", "certificate", "node", "directory", "token", "duplicate", "closing", "removed"}
	if int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// PeerRefusedError is a handshake that failed: one of the two did not want the other.
type PeerRefusedError struct {
	Node    int32  // the peer, 0 when it is not known
	Address string // where it is
	Reason  RefusalReason
	Detail  string
	ByPeer  bool // the peer refused
}

func (e *PeerRefusedError) Error() string {
	who := "peer"
	if e.Node > 0 {
		who = fmt.Sprintf("node %d", e.Node)
	}
	if e.Address != "" {
		who += " at " + e.Address
	}
	if e.ByPeer {
		return fmt.Sprintf("%s refuses (%s): %s", who, e.Reason, e.Detail)
	}
	return fmt.Sprintf("%s is refused (%s): %s", who, e.Reason, e.Detail)
}

// Is matches engine.ErrPeerUnreachable: nothing was sent to it, or what was sent was not looked at. Of a node that was
// removed, to itself, it matches engine.ErrNodeRemoved, too.
func (e *PeerRefusedError) Is(target error) bool {
	return target == engine.ErrPeerUnreachable || target == engine.ErrNodeRemoved && e.ByPeer && e.Reason == RefusedRemoved
}

func (h *hello) encode() []byte {
	b := append(make([]byte, 2, 256), helloMagic...)
	b = append(b, h.low, h.high, byte(h.flavour))
	b = append(b, h.cluster[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(h.from))
	b = binary.BigEndian.AppendUint32(b, uint32(h.to))
	b = append(b, h.directory[:]...)
	for _, v := range []uint64{h.boot, h.instance, h.nonce, h.last} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	for _, s := range []string{h.advertise, h.token, h.name} {
		s = s[:min(len(s), 255)]
		b = append(append(b, byte(len(s))), s...)
	}
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	return b
}

func (w *welcome) encode() []byte {
	b := append(make([]byte, 2, 256), helloMagic...)
	b = append(b, w.version, byte(w.reason))
	b = append(b, w.cluster[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(w.node))
	b = append(b, w.directory[:]...)
	b = binary.BigEndian.AppendUint64(b, w.boot)
	b = binary.BigEndian.AppendUint64(b, w.instance)
	b = append(b, w.words[:min(len(w.words), 512)]...)
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	return b
}

func (d *decoder) magic() {
	if string(d.take(len(helloMagic))) != helloMagic {
		d.fail("it is no peer's")
	}
}

func (d *decoder) id() (id engine.TopicID) {
	copy(id[:], d.take(len(id)))
	return id
}

func (d *decoder) node() int32 {
	b := d.take(4)
	if d.err != nil {
		return 0
	}
	n := int32(binary.BigEndian.Uint32(b))
	if n < 0 {
		d.fail("node %d", n)
		return 0
	}
	return n
}

func (d *decoder) uint64() uint64 {
	b := d.take(8)
	if d.err != nil {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

func (d *decoder) shortString() string { return string(d.take(int(d.byte()))) }

func decodeHello(b []byte) (*hello, error) {
	d := decoder{b: b}
	d.magic()
	h := &hello{low: d.byte(), high: d.byte(), flavour: flavour(d.byte()), cluster: d.id(), from: d.node(), to: d.node(), directory: d.id(),
		boot: d.uint64(), instance: d.uint64(), nonce: d.uint64(), last: d.uint64(), advertise: d.shortString(), token: d.shortString(), name: d.shortString()}
	if d.err == nil && h.low <= protocolVersion && (h.flavour > flavourKnock || h.from == 0) {
		d.fail("flavour %d, from %d", h.flavour, h.from)
	}
	if d.err == nil && h.high > protocolVersion {
		return h, nil // a later version may say more
	}
	return h, d.end()
}

func decodeWelcome(b []byte) (*welcome, error) {
	d := decoder{b: b}
	d.magic()
	w := &welcome{version: d.byte(), reason: RefusalReason(d.byte()), cluster: d.id(), node: d.node(), directory: d.id(), boot: d.uint64(), instance: d.uint64()}
	w.words = string(d.b)
	return w, d.err
}

// readHello reads one message of the handshake.
func readHello(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n > maxHelloBytes {
		return nil, &CodecError{fmt.Sprintf("%d bytes to begin with, at most %d are allowed", n, maxHelloBytes)}
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, noEOF(err)
	}
	return b, nil
}
