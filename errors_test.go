package embedlog

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// allErrors are the sentinels of the package, and whether the same call may be made
// again after them.
var allErrors = map[string]struct {
	err       error
	retriable bool
}{
	"ErrBadBatch":                 {ErrBadBatch, false},
	"ErrBusy":                     {ErrBusy, false},
	"ErrClosed":                   {ErrClosed, false},
	"ErrTransactorEnded":          {ErrTransactorEnded, false},
	"ErrConcurrentTransactions":   {ErrConcurrentTransactions, true},
	"ErrCorrupt":                  {ErrCorrupt, false},
	"ErrFenced":                   {ErrFenced, false},
	"ErrFencedInstance":           {ErrFencedInstance, false},
	"ErrGroupMaxSize":             {ErrGroupMaxSize, false},
	"ErrGroupNotEmpty":            {ErrGroupNotEmpty, false},
	"ErrGroupType":                {ErrGroupType, false},
	"ErrInstanceInUse":            {ErrInstanceInUse, true},
	"ErrInvalidAssignment":        {ErrInvalidAssignment, false},
	"ErrNoReassignment":           {ErrNoReassignment, false},
	"ErrNotRecoverable":           {ErrNotRecoverable, false},
	"ErrInvalidNode":              {ErrInvalidNode, false},
	"ErrNodeRemoved":              {ErrNodeRemoved, false},
	"ErrInvalidReplicationFactor": {ErrInvalidReplicationFactor, false},
	"ErrPeerUnreachable":          {ErrPeerUnreachable, true},
	"ErrCoordinatorLoading":       {ErrCoordinatorLoading, true},
	"ErrUnknownNode":              {ErrUnknownNode, false},
	"ErrInvalidCommit":            {ErrInvalidCommit, false},
	"ErrInvalidGroup":             {ErrInvalidGroup, false},
	"ErrInvalidMember":            {ErrInvalidMember, false},
	"ErrInvalidRecord":            {ErrInvalidRecord, false},
	"ErrInvalidRegex":             {ErrInvalidRegex, false},
	"ErrInvalidReset":             {ErrInvalidReset, false},
	"ErrInvalidSetting":           {ErrInvalidSetting, false},
	"ErrInvalidTimeout":           {ErrInvalidTimeout, false},
	"ErrInvalidTopic":             {ErrInvalidTopic, false},
	"ErrInvalidTransactionalID":   {ErrInvalidTransactionalID, false},
	"ErrInvalidTxnState":          {ErrInvalidTxnState, false},
	"ErrInvalidACL":               {ErrInvalidACL, false},
	"ErrInvalidQuota":             {ErrInvalidQuota, false},
	"ErrInvalidUser":              {ErrInvalidUser, false},
	"ErrUnknownUser":              {ErrUnknownUser, false},
	"ErrLocked":                   {ErrLocked, true},
	"ErrNewerFormat":              {ErrNewerFormat, false},
	"ErrNoBackup":                 {ErrNoBackup, false},
	"ErrNoHandler":                {ErrNoHandler, false},
	"ErrNoSpace":                  {ErrNoSpace, true},
	"ErrNotEmpty":                 {ErrNotEmpty, false},
	"ErrNotLeader":                {ErrNotLeader, true},
	"ErrOffsetOutOfRange":         {ErrOffsetOutOfRange, false},
	"ErrOutOfOrderSequence":       {ErrOutOfOrderSequence, false},
	"ErrPositionLost":             {ErrPositionLost, false},
	"ErrProducerMapping":          {ErrProducerMapping, false},
	"ErrRebalance":                {ErrRebalance, false},
	"ErrReentrant":                {ErrReentrant, false},
	"ErrReplicated":               {ErrReplicated, false},
	"ErrRecordTooLarge":           {ErrRecordTooLarge, false},
	"ErrStorageFailed":            {ErrStorageFailed, false},
	"ErrTopicDiffers":             {ErrTopicDiffers, false},
	"ErrTopicExists":              {ErrTopicExists, false},
	"ErrTxnAborted":               {ErrTxnAborted, false},
	"ErrTxnEnded":                 {ErrTxnEnded, false},
	"ErrUnexpectedOffset":         {ErrUnexpectedOffset, false},
	"ErrUnknownGroup":             {ErrUnknownGroup, false},
	"ErrUnknownMember":            {ErrUnknownMember, false},
	"ErrUnknownOutcome":           {ErrUnknownOutcome, false},
	"ErrUnknownPartition":         {ErrUnknownPartition, false},
	"ErrUnknownTopic":             {ErrUnknownTopic, false},
	"ErrUnstableOffset":           {ErrUnstableOffset, true},
	"ErrWrongDirectory":           {ErrWrongDirectory, false},
}

// hidden are sentinels below that no caller of this package meets.
var hidden = map[string]string{
	"ErrNotYet":               "engine: of an *InvalidNodeError, whose Later says it; the command line asks again",
	"ErrGone":                 "log: answered by package backup",
	"ErrReplicaLost":          "engine: the replica is fetched again, and calls go to the others meanwhile",
	"ErrGroupFull":            "log: partition writes the group and begins another",
	"ErrHeld":                 "log: maintenance tries again",
	"ErrOffsetAhead":          "log: partition says ErrOffsetOutOfRange",
	"ErrOffsetGone":           "log: partition says ErrOffsetOutOfRange",
	"ErrIllegalGeneration":    "engine: for members of the classic protocol",
	"ErrInconsistentProtocol": "engine: for members of the classic protocol",
	"ErrMemberIDRequired":     "engine: for members of the classic protocol",
	"ErrRebalancing":          "engine: for members of the classic protocol",
	"ErrSessionTimeout":       "engine: for members of the classic protocol",
	"ErrUnsupportedAssignor":  "engine: the Go door asks for none",
	"ErrBeyond":               "log: the partition looks again",
	"ErrLineBroken":           "partition: the engine appends anew",
	"ErrInvalidAck":           "engine: for share groups, which the Go door does not have",
	"ErrNotAcquired":          "engine: for share groups, which the Go door does not have",
	"ErrShareSessionEpoch":    "engine: for share groups, which the Go door does not have",
	"ErrShareSessionLimit":    "engine: for share groups, which the Go door does not have",
	"ErrShareSessionNotFound": "engine: for share groups, which the Go door does not have",
}

// Every sentinel is in the table, once, and IsRetriable says of each what the table
// says; every sentinel of the packages below can be had here, or is hidden for a
// reason.
func TestEverySentinel(t *testing.T) {
	for _, name := range sentinels(t, ".") {
		if _, ok := allErrors[name]; !ok {
			t.Errorf("%s is not in the table", name)
		}
	}
	for _, dir := range []string{"log", "partition", "internal/engine"} {
		for _, name := range sentinels(t, dir) {
			_, here := allErrors[name]
			_, not := hidden[name]
			if here == not {
				t.Errorf("%s of %s: in the table %t, hidden %t", name, dir, here, not)
			}
		}
	}
	seen := make(map[error]string)
	for name, row := range allErrors {
		if other := seen[row.err]; other != "" {
			t.Errorf("%s is %s", name, other)
		}
		seen[row.err] = name
		if !strings.HasPrefix(row.err.Error(), "embedlog: ") {
			t.Errorf("%s says %q, without the prefix", name, row.err)
		}
		for _, err := range []error{row.err, fmt.Errorf("append orders/3: %w", row.err), errors.Join(row.err, io.EOF)} {
			if IsRetriable(err) != row.retriable {
				t.Errorf("IsRetriable(%v) is %t", err, !row.retriable)
			}
		}
		if IsRetriable(&UnknownOutcomeError{Err: row.err}) {
			t.Errorf("an unknown outcome because of %s is retriable", name)
		}
	}
}

// sentinels are the names of the variables of a package that begin with Err.
func sentinels(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				for _, id := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(id.Name, "Err") {
						names = append(names, id.Name)
					}
				}
			}
		}
	}
	if len(names) == 0 {
		t.Fatalf("no sentinels in %s", dir)
	}
	slices.Sort(names)
	return names
}

func TestIsRetriable(t *testing.T) {
	full := fmt.Errorf("append: %w", ErrNoSpace)
	for _, row := range []struct {
		name string
		err  error
		want bool
	}{
		{"nil", nil, false},
		{"other", io.EOF, false},
		{"cancelled", context.Canceled, false},
		{"full, then cancelled", errors.Join(ErrNoSpace, context.Canceled), false},
		{"nothing written", &ProduceError{Errs: []error{full, full}}, true},
		{"a part written", &ProduceError{Errs: []error{nil, full}}, false},
		{"a part unknown", &ProduceError{Errs: []error{full, &UnknownOutcomeError{Err: full}}}, false},
		{"a part too large", &ProduceError{Errs: []error{full, ErrRecordTooLarge}}, false},
	} {
		if got := IsRetriable(row.err); got != row.want {
			t.Errorf("%s: %t, want %t", row.name, got, row.want)
		}
	}
}

// A ProduceError names each reason once, and says how much is written.
func TestProduceErrorText(t *testing.T) {
	a, b := errors.New("reason a"), errors.New("reason b")
	e := &ProduceError{Topic: "orders", Errs: []error{nil, a, a, b, a, nil}}
	if got, want := e.Error(), "produce to orders: 2 of 6 records written; reason a; reason b"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	e.Topic = "" // of Producer.Produce, where each record names its own
	if got, want := e.Error(), "produce: 2 of 6 records written; reason a; reason b"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if list := e.Unwrap(); len(list) != 2 || !errors.Is(e, a) || !errors.Is(e, b) {
		t.Errorf("%v", list)
	}
}
