package kafka

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"

	"github.com/twmb/franz-go/pkg/kerr"
)

// sentinels are all that the root exports, by name.
var sentinels = map[string]error{
	"ErrBadBatch": embedlog.ErrBadBatch, "ErrBusy": embedlog.ErrBusy, "ErrClosed": embedlog.ErrClosed,
	"ErrConcurrentTransactions": embedlog.ErrConcurrentTransactions, "ErrCorrupt": embedlog.ErrCorrupt, "ErrTransactorEnded": embedlog.ErrTransactorEnded,
	"ErrFenced": embedlog.ErrFenced, "ErrFencedInstance": embedlog.ErrFencedInstance, "ErrGroupNotEmpty": embedlog.ErrGroupNotEmpty,
	"ErrGroupMaxSize": embedlog.ErrGroupMaxSize, "ErrGroupType": embedlog.ErrGroupType,
	"ErrInstanceInUse": embedlog.ErrInstanceInUse, "ErrInvalidCommit": embedlog.ErrInvalidCommit, "ErrInvalidGroup": embedlog.ErrInvalidGroup,
	"ErrInvalidMember": embedlog.ErrInvalidMember, "ErrInvalidRecord": embedlog.ErrInvalidRecord, "ErrInvalidRegex": embedlog.ErrInvalidRegex,
	"ErrInvalidReset": embedlog.ErrInvalidReset, "ErrInvalidSetting": embedlog.ErrInvalidSetting, "ErrInvalidTimeout": embedlog.ErrInvalidTimeout,
	"ErrInvalidTopic": embedlog.ErrInvalidTopic, "ErrInvalidTransactionalID": embedlog.ErrInvalidTransactionalID,
	"ErrInvalidTxnState": embedlog.ErrInvalidTxnState, "ErrLocked": embedlog.ErrLocked, "ErrNewerFormat": embedlog.ErrNewerFormat,
	"ErrNoBackup": embedlog.ErrNoBackup, "ErrNoSpace": embedlog.ErrNoSpace, "ErrNotEmpty": embedlog.ErrNotEmpty,
	"ErrNotLeader": embedlog.ErrNotLeader, "ErrOffsetOutOfRange": embedlog.ErrOffsetOutOfRange,
	"ErrOutOfOrderSequence": embedlog.ErrOutOfOrderSequence, "ErrPositionLost": embedlog.ErrPositionLost,
	"ErrProducerMapping": embedlog.ErrProducerMapping, "ErrRebalance": embedlog.ErrRebalance, "ErrRecordTooLarge": embedlog.ErrRecordTooLarge,
	"ErrStorageFailed": embedlog.ErrStorageFailed, "ErrTopicDiffers": embedlog.ErrTopicDiffers, "ErrTopicExists": embedlog.ErrTopicExists,
	"ErrTxnAborted": embedlog.ErrTxnAborted, "ErrTxnEnded": embedlog.ErrTxnEnded, "ErrUnexpectedOffset": embedlog.ErrUnexpectedOffset,
	"ErrUnknownGroup": embedlog.ErrUnknownGroup, "ErrUnknownMember": embedlog.ErrUnknownMember,
	"ErrUnknownOutcome": embedlog.ErrUnknownOutcome, "ErrUnknownPartition": embedlog.ErrUnknownPartition,
	"ErrUnknownTopic": embedlog.ErrUnknownTopic, "ErrUnstableOffset": embedlog.ErrUnstableOffset,
	"ErrWrongDirectory": embedlog.ErrWrongDirectory, "ErrUnknownUser": embedlog.ErrUnknownUser, "ErrInvalidUser": embedlog.ErrInvalidUser,
	"ErrInvalidACL": embedlog.ErrInvalidACL, "ErrInvalidQuota": embedlog.ErrInvalidQuota, "ErrReentrant": embedlog.ErrReentrant,
	"ErrInvalidReplicationFactor": embedlog.ErrInvalidReplicationFactor, "ErrInvalidAssignment": embedlog.ErrInvalidAssignment,
	"ErrUnknownNode": embedlog.ErrUnknownNode, "ErrInvalidNode": embedlog.ErrInvalidNode, "ErrNodeRemoved": embedlog.ErrNodeRemoved, "ErrNotRecoverable": embedlog.ErrNotRecoverable, "ErrPeerUnreachable": embedlog.ErrPeerUnreachable,
	"ErrNoReassignment":     embedlog.ErrNoReassignment,
	"ErrCoordinatorLoading": embedlog.ErrCoordinatorLoading, "ErrReplicated": embedlog.ErrReplicated, "ErrNoHandler": embedlog.ErrNoHandler,
}

// Every sentinel that the root's files declare has a code of its own choosing, also
// when it is wrapped.
func TestEverySentinelHasACode(t *testing.T) {
	mapped := make(map[error]int16)
	for _, c := range codes {
		if _, twice := mapped[c.err]; twice {
			t.Errorf("%v is in the list twice", c.err)
		}
		mapped[c.err] = c.code
	}
	declared := rootSentinels(t)
	if len(declared) < 40 {
		t.Fatalf("only %d sentinels found in the root's files", len(declared))
	}
	for _, name := range declared {
		err, ok := sentinels[name]
		if !ok {
			t.Errorf("%s is not in this test's table", name)
			continue
		}
		code, ok := mapped[err]
		if !ok {
			t.Errorf("%s has no code", name)
			continue
		}
		if got := codeOf(fmt.Errorf("append orders/3: %w", err)); got != code {
			t.Errorf("%s wrapped has code %d, want %d", name, got, code)
		}
		if kerr.TypedErrorForCode(code) == nil {
			t.Errorf("%s has code %d, which is none", name, code)
		}
	}
	if len(declared) != len(sentinels) {
		t.Errorf("this test's table has %d sentinels, the root %d", len(sentinels), len(declared))
	}
}

// rootSentinels are the exported Err variables of the root package.
func rootSentinels(t *testing.T) (names []string) {
	files, err := filepath.Glob("../*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(name.Name, "Err") {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names
}

// A client may try again exactly what the Go door calls retriable, where both have a
// word for it.
func TestCodesAreAsRetriableAsErrors(t *testing.T) {
	for name, err := range sentinels {
		switch {
		case !embedlog.IsRetriable(err), errors.Is(err, embedlog.ErrLocked), errors.Is(err, embedlog.ErrInstanceInUse):
			continue
		case errors.Is(err, embedlog.ErrConcurrentTransactions):
			continue // every client tries it again, although the protocol does not call it so
		}
		if code := kerr.TypedErrorForCode(codeOf(err)); !code.Retriable {
			t.Errorf("%s is retriable, its code %s is not", name, code.Message)
		}
	}
}

// The names of codes are those of the protocol.
func TestCodeTable(t *testing.T) {
	src, err := os.ReadFile("codes_table.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for line := range strings.Lines(string(src)) {
		var name string
		var code int16
		if n, _ := fmt.Sscanf(strings.TrimSpace(line), "code%s int16 = %d", &name, &code); n != 2 || code == 0 {
			continue
		}
		found++
		want := strings.ReplaceAll(kerr.TypedErrorForCode(code).Message, "_", "")
		if code == codeNotLeaderOrFollower {
			want = "NOTLEADERORFOLLOWER" // its name since Kafka 2.6
		}
		if strings.ToUpper(name) != want {
			t.Errorf("%d is named %s, in the protocol %s", code, name, want)
		}
	}
	if found < 130 {
		t.Errorf("only %d codes found", found)
	}
}

func TestCodesOfTypedErrors(t *testing.T) {
	for _, row := range []struct {
		err  error
		want int16
	}{
		{nil, codeNone},
		{errors.New("anything"), codeUnknownServerError},
		{&partition.FencedError{}, codeInvalidProducerEpoch},
		{&partition.FencedError{Coordinator: true}, codeTransactionCoordinatorFenced},
		{&engine.TxnFencedError{}, codeProducerFenced},
		{fmt.Errorf("%w: %w", &engine.UnknownTopicError{Deleted: true}, log.ErrClosed), codeUnknownTopicOrPartition},
		{&partition.UnknownOutcomeError{Err: log.ErrNoSpace}, codeRequestTimedOut},
	} {
		if got := codeOf(row.err); got != row.want {
			t.Errorf("%v has code %d, want %d", row.err, got, row.want)
		}
	}
	if got := coordinatorCodeOf(log.ErrClosed); got != codeCoordinatorNotAvailable {
		t.Errorf("a closed coordinator has code %d", got)
	}
}
