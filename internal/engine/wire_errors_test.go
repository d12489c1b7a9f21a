package engine

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Every sentinel and every error type of the packages is known to peers, by the source.
func TestPeersKnowEveryError(t *testing.T) {
	known := map[string]bool{}
	for _, err := range allPeerSentinels() {
		known[err] = true
	}
	found := 0
	for _, dir := range []string{"../../log", "../../partition", "."} {
		names, types := errorNames(t, dir)
		for _, name := range names {
			found++
			if !known[name] {
				t.Errorf("%s of %s does not arrive at a peer: add it to peerErrors", name, dir)
			}
		}
		for _, name := range types {
			found++
			if !peerErrors.HasType(name) {
				t.Errorf("%s of %s does not arrive at a peer: add it to peerErrors", name, dir)
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d errors were found in the source", found)
	}
}

func allPeerSentinels() []string { return peerErrors.Names() }

// errorNames are the variables ErrX and the types XError of a package.
func errorNames(t *testing.T, dir string) (vars, types []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
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
		for _, decl := range f.Decls {
			g, ok := decl.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range g.Specs {
				switch s := spec.(type) {
				case *ast.ValueSpec:
					for _, n := range s.Names {
						if g.Tok == token.VAR && strings.HasPrefix(n.Name, "Err") {
							vars = append(vars, n.Name)
						}
					}
				case *ast.TypeSpec:
					if strings.HasSuffix(s.Name.Name, "Error") && s.Name.IsExported() {
						types = append(types, s.Name.Name)
					}
				}
			}
		}
	}
	return vars, types
}

// Each known error, filled with values, alone and wrapped, arrives with its fields, its
// text, and all that it matches.
func TestErrorsArrive(t *testing.T) {
	var list []error
	for _, name := range peerErrors.Names() {
		list = append(list, peerErrors.Named(name))
	}
	for _, typ := range peerErrors.Types() {
		p := reflect.New(typ)
		fillWire(p.Elem(), 3)
		list = append(list, p.Interface().(error))
	}
	for _, err := range list {
		for _, sent := range []error{err, fmt.Errorf("append orders/3: %w", err), errors.Join(errors.New("first"), err)} {
			got := DecodeError(EncodeError(nil, sent))
			if got == nil || got.Error() != sent.Error() {
				t.Errorf("%T arrives as %v, want %v", err, got, sent)
				continue
			}
			for _, name := range peerErrors.Names() {
				if s := peerErrors.Named(name); errors.Is(got, s) != errors.Is(sent, s) {
					t.Errorf("%T: errors.Is(%s) is %t", err, name, errors.Is(got, s))
				}
			}
			typ := reflect.TypeOf(err)
			if typ.Kind() != reflect.Pointer || !peerErrors.HasType(typ.Elem().Name()) {
				continue
			}
			target := reflect.New(typ)
			if !errors.As(got, target.Interface()) {
				t.Errorf("%T is not found", err)
			} else if !reflect.DeepEqual(target.Elem().Interface(), err) {
				t.Errorf("%T arrives as %+v", err, target.Elem().Elem().Interface())
			}
		}
	}
}

// fillWire sets every field to something that is not zero.
func fillWire(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(-7)
	case reflect.String:
		v.SetString("na\xffme")
	case reflect.Interface:
		if v.Type() == reflect.TypeFor[error]() && depth > 0 {
			v.Set(reflect.ValueOf(&partition.NotLeaderError{Leader: 2, LeaderEpoch: 5, Address: "b:1"}))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fillWire(v.Index(i), depth-1)
		}
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(uint64(i + 1))
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.UnixMilli(1700000000123).UTC()))
			return
		}
		for i := range v.NumField() {
			fillWire(v.Field(i), depth)
		}
	}
}

func TestErrorsFromAPeer(t *testing.T) {
	unknown := fmt.Errorf("append orders/0: %w", &partition.UnknownOutcomeError{
		BaseOffset: 4, LastOffset: 9, Err: &partition.UnexpectedOffsetError{Expected: 1, LogEnd: 2}})
	got := DecodeError(EncodeError(nil, unknown))
	var u *partition.UnknownOutcomeError
	var in *partition.UnexpectedOffsetError
	if !errors.As(got, &u) || u.LastOffset != 9 || !errors.As(got, &in) || in.LogEnd != 2 || !errors.Is(got, partition.ErrUnexpectedOffset) {
		t.Errorf("got %#v", got)
	}
	if err := DecodeError(EncodeError(nil, nil)); err != nil {
		t.Errorf("no error arrives as %v", err)
	}
	// What nobody knows is text; what it wraps is known.
	odd := fmt.Errorf("odd: %w", &oddError{errors.Join(context.Canceled, errors.New("x"))})
	got = DecodeError(EncodeError(nil, odd))
	if got.Error() != odd.Error() || !errors.Is(got, context.Canceled) || !errors.Is(got, log.ErrNoSpace) || errors.Is(got, log.ErrClosed) {
		t.Errorf("got %v", got)
	}
	// A long one, and a deep one, are cut.
	long := errors.New(strings.Repeat("x", 1<<20))
	for range 200 {
		long = fmt.Errorf("y: %w", long)
	}
	if n := len(EncodeError(nil, long)); n > 64<<10 {
		t.Errorf("%d bytes", n)
	}
}

type oddError struct{ err error }

func (e *oddError) Error() string        { return "odd one: " + e.err.Error() }
func (e *oddError) Unwrap() error        { return e.err }
func (e *oddError) Is(target error) bool { return target == log.ErrNoSpace }

func FuzzDecodeError(f *testing.F) {
	f.Add(EncodeError(nil, &CommitError{Group: "g", Failures: []CommitFailure{{Index: 1, Err: ErrRebalance}}}))
	f.Add(EncodeError(nil, fmt.Errorf("a: %w", &partition.UnknownOutcomeError{Err: context.Canceled})))
	f.Fuzz(func(t *testing.T, b []byte) {
		err := DecodeError(b)
		if err != nil {
			_ = err.Error()
			_ = errors.Is(err, ErrRebalance)
		}
	})
}
