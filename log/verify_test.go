package log

import "testing"

func wantVerified(t *testing.T, l *Log) { t.Helper() }
