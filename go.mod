module github.com/x/embedlog

go 1.26
