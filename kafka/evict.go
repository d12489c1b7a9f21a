package kafka

import (
	"crypto/tls"
	"errors"

	"github.com/x/embedlog/internal/engine"
)

// errUserGone ends a connection whose user was deleted.
var errUserGone = errors.New("the user was deleted")

// securityChanged is told what became of users and ACLs. ACLs are asked for with each
// request; a user is not.
func (s *Server) securityChanged(c engine.SecurityChange) {
	if c.UserGone != "" {
		s.evict(c.UserGone)
	}
}

// evict closes the connections that a user's password has opened: what waits on them
// ends, and nothing more is answered. A changed password closes none, as in Kafka: it
// is changed while the clients that know the old one go on.
func (s *Server) evict(user string) {
	n := 0
	s.mu.Lock()
	for c := range s.conns {
		if u := c.user.Load(); u != nil && *u == user {
			c.evict()
			n++
		}
	}
	s.mu.Unlock()
	if n > 0 {
		s.logger.Info("kafka: connections of a deleted user closed", "user", user, "connections", n)
	}
}

// evict closes the connection without a word. It does not wait for the peer, as TLS
// would to say goodbye.
func (c *conn) evict() {
	c.gone.Store(true)
	c.cancel()
	if t, ok := c.nc.(*tls.Conn); ok {
		t.NetConn().Close()
		return
	}
	c.nc.Close()
}

// belongsTo notes that a user of the database has authenticated the connection. It
// fails when there is no such user any more: he may have been deleted while he proved
// who he is. Whichever is first, this or evict, the other one sees it.
func (c *conn) belongsTo(user string) error {
	c.user.Store(&user)
	if _, ok := c.srv.engine.User(user); !ok {
		return errUserGone
	}
	return nil
}
