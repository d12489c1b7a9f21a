package kafka

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"testing"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
)

// What members of the classic protocol are told is no sentinel of the root: each has a
// code, too.
func TestEverySentinelOfGroupsHasACode(t *testing.T) {
	named := make(map[string]bool) // what codes.go names
	table, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(table, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			named[s.Sel.Name] = true
		}
		return true
	})
	found := 0
	for _, file := range []string{"classic_errors.go", "group_errors.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), "../internal/engine/"+file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				for _, n := range s.(*ast.ValueSpec).Names {
					if found++; !named[n.Name] {
						t.Errorf("%s of %s is not in codes.go", n.Name, file)
					}
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d sentinels are found", found)
	}
}

func TestCodesOfGroups(t *testing.T) {
	seen := []int16{}
	for _, row := range []struct {
		err  error
		want int16
	}{
		{&engine.MemberIDRequiredError{}, codeMemberIDRequired},
		{&engine.GenerationError{}, codeIllegalGeneration},
		{&engine.InconsistentProtocolError{}, codeInconsistentGroupProtocol},
		{&engine.SessionTimeoutError{}, codeInvalidSessionTimeout},
		{engine.ErrRebalancing, codeRebalanceInProgress},
		{embedlog.ErrGroupMaxSize, codeGroupMaxSizeReached},
		{&engine.MemberEpochError{}, codeFencedMemberEpoch},
		{&engine.InvalidMemberError{}, codeInvalidRequest},
		{&engine.InvalidRegexError{}, codeInvalidRegularExpression},
		{engine.ErrUnsupportedAssignor, codeUnsupportedAssignor},
		{&engine.GroupTypeError{}, codeGroupIDNotFound},
	} {
		if got := coordinatorCodeOf(row.err); got != row.want || slices.Contains(seen, got) {
			t.Errorf("%T has code %d, want %d and no other with it", row.err, got, row.want)
		}
		seen = append(seen, row.want)
	}
}
