#!/bin/sh
# Joins and checks the parts that lie beside it and unpacks them: sh unpack.sh FOLDER
# PYTHON=... before the command names the Python that will run (python3 otherwise).
set -u
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}

fail() {
    echo "error: $*" >&2
    exit 2
}

[ $# -eq 1 ] || fail "name the folder to unpack into: sh unpack.sh FOLDER"
target=$1

# 1. the machine
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
    fail "$python does not start; name a Python @PYTHON@ with PYTHON=... before the command"
[ "$found" = "@PYTHON@" ] ||
    fail "the packages are for Python @PYTHON@ and $python is $found; name another with PYTHON=... before the command, or make the bundle with python=$found"
[ "$(uname -m)" = "@MACHINE@" ] ||
    fail "the packages are for @MACHINE@ and this machine is $(uname -m); make the bundle with another platform=..."

# 2. the parts
[ -f "$here/SHA256SUMS" ] || fail "SHA256SUMS is missing in $here; bring it there too"
while read -r sum part; do
    [ -f "$here/$part" ] || fail "$part is missing in $here; bring it there too"
    [ "$(sha256sum < "$here/$part")" = "$sum  -" ] || fail "$here/$part is damaged: its checksum is not that of SHA256SUMS; bring it again"
done < "$here/SHA256SUMS"

# 3. the folder
if [ -e "$target" ]; then
    cmp -s "$here/SHA256SUMS" "$target/SHA256SUMS" || fail "$target exists already and holds something else; name a new folder"
else
    mkdir -p "$(dirname "$target")" || fail "$target cannot be made; name another folder"
    free=$(df -Pk "$(dirname "$target")" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge @KIB@ ] || fail "$target takes $((@KIB@ / 1024)) MiB and $((free / 1024)) are free there; name a folder on another disk"
    part=$target.part
    rm -rf "$part"
    said=$(cut -d ' ' -f 3 < "$here/SHA256SUMS" | (cd "$here" && xargs cat) 2>/dev/null | "$python" -W ignore -c '
import sys, tarfile
try:
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|xz") as archive:
        archive.extractall(sys.argv[1])
except (OSError, EOFError, ImportError, tarfile.TarError) as error:
    sys.exit(" ".join(str(error).split()))
' "$part" 2>&1) || {
        rm -rf "$part"
        fail "unpacking into $target stopped ($said); nothing was left there"
    }
    cp "$here/SHA256SUMS" "$part/SHA256SUMS"
    mv "$part" "$target" || fail "$target could not be put in place of $part"
fi

# 4. the paths
root=$(cd "$target" && pwd)
cat > "$root/env.sh" <<END
export PYTHONPATH="$root/project:$root/packages\${PYTHONPATH:+:\$PYTHONPATH}"
export RECALLBENCH_CACHE="$root/cache" HF_HUB_OFFLINE=1
END
. "$root/env.sh"

# 5. what is missing
"$python" -m pipelines.packages || exit 2
echo "unpacked into $root; go on with: . $root/env.sh && $python -m pipelines.compare"
