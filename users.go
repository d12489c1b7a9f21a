package embedlog

import (
	"context"
	"fmt"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/scram"
)

// Users are for those who come in by a network: whoever has the database open in Go
// may do everything. What is stored of a password recognises it and does not tell it.

// User is a user and the credentials that he has, one for each mechanism. It must not
// be changed.
type User = engine.User

// Credential is what is stored of a password for one mechanism.
type Credential = scram.Credential

// ScramMechanism is a kind of SCRAM (RFC 5802), by Kafka's number.
type ScramMechanism = scram.Mechanism

// The mechanisms that there are.
const (
	ScramSHA256 = scram.SHA256
	ScramSHA512 = scram.SHA512
)

// NewCredential makes a credential of a password, for DB.AlterUser. The password is
// hashed iterations times, 4096 to 16384; zero means 8192.
func NewCredential(m ScramMechanism, password string, iterations int) (*Credential, error) {
	if iterations == 0 {
		iterations = scram.DefaultIterations
	}
	c := &Credential{Mechanism: m, Iterations: iterations, Salt: make([]byte, 1), StoredKey: make([]byte, m.KeyBytes()), ServerKey: make([]byte, m.KeyBytes())}
	if why := c.Reason(); why != "" {
		return nil, &InvalidUserError{Reason: why}
	}
	if password == "" {
		return nil, &InvalidUserError{Reason: "the password is empty"}
	}
	return scram.New(m, password, iterations)
}

// SetUser makes a user with that password, or gives one that is there another
// password: the connections that he has stay until he authenticates again. He can come in by each mechanism: SCRAM-SHA-256, SCRAM-SHA-512, and
// PLAIN where it is offered. It takes some 20 ms. It is on the disk when it returns
// nil; an *InvalidUserError says that name or password cannot be.
func (db *DB) SetUser(ctx context.Context, name, password string) error {
	var set []*Credential
	for _, m := range []ScramMechanism{ScramSHA256, ScramSHA512} {
		c, err := NewCredential(m, password, 0)
		if err != nil {
			return fmt.Errorf("set user %.64s: %w", name, err)
		}
		set = append(set, c)
	}
	return db.engine.AlterUser(ctx, name, set)
}

// AlterUser gives a user credentials and takes those of other mechanisms away, all or
// nothing; a user who has none left is gone. An *UnknownUserError says that there was
// nothing to take away, *InvalidUserError, joined, what cannot be.
func (db *DB) AlterUser(ctx context.Context, name string, set []*Credential, unset ...ScramMechanism) error {
	return db.engine.AlterUser(ctx, name, set, unset...)
}

// DeleteUser deletes a user: he is not let in any more, and the connections that his
// password has opened at the Kafka listener are closed. His ACLs and quotas stay.
// It fails with an *UnknownUserError when there is none of that name.
func (db *DB) DeleteUser(ctx context.Context, name string) error {
	return db.engine.DeleteUser(ctx, name)
}

// Users are all users, by name.
func (db *DB) Users() []User { return db.engine.Users() }

// CheckPassword says whether there is such a user and that is his password, for a
// program with a door of its own. It takes about 10 ms, as long for a user that there
// is not.
func (db *DB) CheckPassword(name, password string) bool {
	return db.engine.CheckPassword(name, password)
}
