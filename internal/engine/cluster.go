package engine

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/partition"
)

// LogID names one log of the database. The zero topic is the metadata: its log is the
// group that decides about all others.
type LogID struct {
	Topic     TopicID
	Partition int32
}

// IsMeta says that the log is the metadata's.
func (id LogID) IsMeta() bool { return id.Topic.IsZero() }

// Cluster replicates the logs of an engine on its peers, and carries requests between
// them. Package raftrepl has the implementation. An engine without one is alone.
//
// A node is named by a number from 1 on, Kafka's broker id, for as long as its directory
// lives. All methods may be called from several goroutines.
type Cluster interface {
	// Self is this node.
	Self() int32
	// Start is called once, by Open, before any log is opened; from then on h.Serve may
	// be called. It fails when the node cannot take part: wrong cluster, lost votes.
	Start(h Host) error
	// Log is the replicator of a log that is about to be opened. It answers
	// *partition.NotLeaderError until Run was called. initial are the members of the group
	// that the log begins with if it is in none yet: all of them say the same. A log that
	// holds records already becomes a group of this node alone. Without initial a log that
	// is in no group waits to be made a member by its leader.
	Log(id LogID, initial []int32) ReplicatedLog
	// Call has the peer's Host.Serve answer a request. An error that matches
	// ErrPeerUnreachable says that the request was not sent; any other that it may have been served.
	// request may be used again when Call returns.
	Call(ctx context.Context, node int32, service string, request []byte) ([]byte, error)
	// Close leaves the peers. All logs were stopped.
	Close() error
}

// Bootstrapper is what a Cluster may be, too: one that knows how its cluster begins.
type Bootstrapper interface{ Bootstrap() Bootstrap }

// Bootstrap is what a node is told before it knows the metadata. The zero value is a
// node that waits in an empty directory until a cluster adds it, or that goes on.
type Bootstrap struct {
	// Cluster is the id that a new directory gets. Zero is a random one where the node
	// begins a cluster by itself, and that of the first peer that is heard of otherwise.
	Cluster TopicID
	// Initial are the nodes that begin a cluster together, with empty directories: all of
	// them say the same. A directory that was used alone begins one by itself.
	Initial []int32
	// Joins says that the node is to become one of a cluster that is there: a directory that was used alone is
	// refused, because what it holds cannot become a part of that.
	Joins bool
	// Address is where peers find this node.
	Address string
}

// Forgetter is what a Cluster may be, too: one that remembers more of a log than the log
// does. Forget is called after the log was stopped. Without gone its group has let go of
// this replica, and the files are about to be removed: an empty log without initial
// members may begin there again, and its votes are still remembered. With gone
// the topic is deleted and the files are removed: nothing of it comes again.
type Forgetter interface {
	Forget(id LogID, gone bool) error
}

// ErrReplicaLost says that what this node has of a log is no replica of its group any
// more: its files are damaged, gone, or of a replica that was given up. It is fetched again.
var ErrReplicaLost = errors.New("embedlog: the replica is lost")

// Renewer is what a Cluster may be, too: one whose replicas can be given up. Renew is
// called after the log was stopped, and before its files are removed: from then on, over
// crashes, nothing is said in the name of the replica that they were, and a log that is
// not empty does not run. The next one waits to be made a member by its leader.
type Renewer interface{ Renew(id LogID) error }

// Damageable is what a ReplicatedLog may be, too: Damaged is why it has stopped for good
// and is to be fetched again, nil when it is well or that would not help.
type Damageable interface{ Damaged() error }

// Yielder is what a ReplicatedLog may be, too: Yield has it refuse the lead from then on where another node offers it. It
// may still be elected when nobody else can be.
type Yielder interface{ Yield() }

// PeerTroubles is what a Cluster may be, too: PeerTrouble says in words why a peer cannot be reached, or with node 0
// why the cluster that is to be joined was not found; empty when nothing is wrong, or nothing was tried.
type PeerTroubles interface{ PeerTrouble(node int32) string }

// Certified is what a Cluster may be, too: CertificateEnds is when the certificate ends by which peers know this
// node; zero where there is none.
type Certified interface{ CertificateEnds() time.Time }

// Adopter is what a Host is, too: a directory whose cluster id is zero takes that of the
// first peer that it hears of.
type Adopter interface {
	Adopt(cluster TopicID) error
}

// Registry is what a Host is, too: it knows which directory speaks for a node. ok is
// false while the metadata, as far as it is known here, has none. Standing is what a directory may do that says to be a
// node's: a Cluster has only those served who may, and cuts off who may not any more.
type Registry interface {
	Directory(node int32) (id TopicID, ok bool)
	Standing(node int32, directory TopicID) Standing
}

// NodesWatcher is what a Cluster may be, too: NodesChanged is called when the metadata says something else of nodes. It does
// not wait.
type NodesWatcher interface{ NodesChanged() }

// Removable is what a Cluster may be, too: RemovedBy is a peer that has refused this node because it was removed; 0 is none.
type Removable interface{ RemovedBy() int32 }

// Host is what a Cluster knows of its engine.
type Host interface {
	Dir() string // the real directory; empty in memory
	FS() vfs.FS
	Logger() *slog.Logger
	Now() time.Time
	// Identity are the ids in FORMAT.
	Identity() (cluster, directory TopicID)
	// Peers are the addresses of the nodes that the metadata knows.
	Peers() map[int32]string
	// Serve answers a peer's request. request is valid during the call only.
	Serve(ctx context.Context, from int32, service string, request []byte) ([]byte, error)
}

// ReplicatedLog is one log as a member of its group.
type ReplicatedLog interface {
	partition.Replicator
	// Run takes part in the group with the log of p, which was opened with this as its
	// Replicator. Stop ends that, before p is closed; it may be called again.
	Run(p *partition.Partition) error
	Stop()
	// Leader is who leads, as far as is known here, and in which epoch. Node is -1 when
	// nobody is known to.
	Leader() (node, epoch int32)
	// Watch has f called after the leader changed, with no lock held, until cancel is called.
	Watch(f func()) (cancel func())
	// Lead waits until all that earlier leaders have left in the log is committed here, and
	// returns the epoch in which this node leads: from then on the log up to the high
	// watermark is the whole truth. It fails with *partition.NotLeaderError where it does not lead.
	Lead(ctx context.Context) (epoch int32, err error)
	// Confirm returns when a majority has said that this node still leads: what was read
	// before the call was the newest there is. (ReadIndex, Raft thesis 6.4)
	Confirm(ctx context.Context) error
	// SetMembers has the leader change the group's members, one at a time: new ones get the log
	// before they have a vote. It returns when that is done. Called again it goes on.
	SetMembers(ctx context.Context, nodes []int32) error
	// Transfer gives the leadership to a member, 0 to any. It may fail and be tried again, with an
	// *InvalidAssignmentError that has a reason alone when that one does not answer.
	Transfer(ctx context.Context, to int32) error
	// Status describes the group as it is seen here.
	Status() LogStatus
}

// Fuller is a ReplicatedLog that says whether there was no room lately for what its leader sends.
type Fuller interface{ Full() bool }

// LogStatus describes one group.
type LogStatus struct {
	Leader, Epoch int32
	Members       []MemberStatus
	// Reason says in words why there is no leader, or why this node does not take part;
	// empty when all is well.
	Reason string
}

// MemberStatus is one member of a group. What a follower does not know of the others is -1.
type MemberStatus struct {
	Node  int32
	Voter bool
	// InSync says that the member has what was committed a short while ago.
	InSync bool
	// Lag is how many entries it is behind the leader's log.
	Lag int64
	// Contact is how long ago the leader heard of it.
	Contact time.Duration
}
