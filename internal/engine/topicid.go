package engine

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
)

// TopicID is what a topic is, whatever its name: 16 random bytes, as in Kafka. The
// zero value stands for none.
type TopicID [16]byte

// String is the id as Kafka writes it: 22 characters of base64url.
func (id TopicID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// IsZero says whether it stands for no topic.
func (id TopicID) IsZero() bool { return id == TopicID{} }

// idEncoding refuses text whose last character has bits that mean nothing: each id
// has one name.
var idEncoding = base64.RawURLEncoding.Strict()

const idTextLen = 22

// ParseTopicID reads what String writes.
func ParseTopicID(text string) (id TopicID, err error) {
	if len(text) == idTextLen {
		if n, err := idEncoding.Decode(id[:], []byte(text)); err == nil && n == len(id) && id.String() == text {
			return id, nil
		}
	}
	return TopicID{}, fmt.Errorf("%q is no id: want %d characters of base64url", text, idTextLen)
}

// newID returns a random id that does not begin with "-", which would make its
// directory look like an option on a command line.
func newID() TopicID {
	for {
		var id TopicID
		rand.Read(id[:]) // it never fails: see crypto/rand
		if !id.IsZero() && id.String()[0] != '-' {
			return id
		}
	}
}
