#!/usr/bin/env bash
# What pip cannot bring: libGL for opencv-python, and a Chromium for the tests that look at pages.
# Installs them with apt-get where it may; otherwise names the package and goes on.
set -u
python=$1

may_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
install() {
  echo "installing $* with apt-get"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

if ! error=$("$python" -c 'import cv2' 2>&1); then
  case $error in
    *libGL*|*libgthread*|*libglib*)
      if may_install; then install libgl1 libglib2.0-0; else
        echo "opencv-python needs the system's libGL. On Debian and Ubuntu: sudo apt-get install libgl1 libglib2.0-0"; fi ;;
  esac
  "$python" -c 'import cv2' || { echo "opencv-python does not load; see the message above"; exit 1; }
fi

browser() {
  for name in chromium chromium-browser google-chrome google-chrome-stable; do command -v $name >/dev/null && return; done
  [ -x "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" ]
}
if ! browser; then
  if may_install; then install chromium fonts-dejavu-core; fi
  browser || echo "no Chromium found: the tests that open JupyterLab and the site need one. On Debian: sudo apt-get install chromium"
fi
exit 0
