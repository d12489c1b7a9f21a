package raftrepl

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/x/embedlog/internal/engine"
)

var _ engine.PeerTroubles = (*Node)(nil)

// PeerTrouble implements engine.PeerTroubles.
func (n *Node) PeerTrouble(node int32) string {
	n.mu.Lock()
	t, joining := n.transport, n.joining
	n.mu.Unlock()
	if node == 0 {
		if joining == nil {
			return ""
		}
		return fmt.Sprintf("%s is asked to let this node in, without success: %s", n.cfg.Join, troubleText(joining))
	}
	if t == nil || node == t.self {
		return ""
	}
	t.mu.Lock()
	p := t.peers[node]
	t.mu.Unlock()
	if p == nil {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.slots[flavourMain]
	if s.wire != nil || s.err == nil {
		return ""
	}
	return troubleText(s.err)
}

// troubleText is an error for who knows which peer it is about: every layer has said so.
func troubleText(err error) string {
	refused := new(PeerRefusedError)
	switch {
	case errors.As(err, &refused) && refused.ByPeer:
		return fmt.Sprintf("it refuses this node (%s): %s", refused.Reason, refused.Detail)
	case errors.As(err, &refused):
		return fmt.Sprintf("this node refuses it (%s): %s", refused.Reason, refused.Detail)
	}
	text := err.Error()
	if _, after, ok := cutLast(text, engine.ErrPeerUnreachable.Error()+": "); ok {
		text = after
	}
	return text
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// refusalText is a refusal without the port that the peer dialled from, which is another one each time.
func refusalText(err error) string {
	refused := new(PeerRefusedError)
	if errors.As(err, &refused) {
		return fmt.Sprint(refused.Node, refused.Reason, refused.Detail)
	}
	return err.Error()
}

const (
	// sayAgain is after what time something is logged again that goes on.
	sayAgain = time.Minute
	// maxSayings bounds what is remembered of what was logged.
	maxSayings = 64
)

// sayings are what was logged a short while ago, so that what is tried again and again does not fill the
// log. It may be used by several goroutines.
type sayings struct {
	mu sync.Mutex
	at map[string]time.Time
}

// news says whether a text is to be logged.
func (s *sayings) news(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for was, at := range s.at {
		if now.Sub(at) >= sayAgain {
			delete(s.at, was)
		}
	}
	if _, told := s.at[text]; told || len(s.at) >= maxSayings {
		return false
	}
	if s.at == nil {
		s.at = make(map[string]time.Time)
	}
	s.at[text] = now
	return true
}
