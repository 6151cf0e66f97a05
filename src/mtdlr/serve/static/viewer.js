"use strict";
(function () {
  const byId = id => document.getElementById(id), section = byId("viewer");
  const base = "/jobs/" + section.dataset.job + "/view/", top = Number(section.dataset.suv);
  const sliders = [...document.querySelectorAll("[data-plane]")];
  const share = slider => Number(slider.value) / Math.max(Number(slider.max), 1);
  const only = ["s-pet", "s-mask"].map(byId);

  // The server's own planes: a picture a slice.
  function flat() {
    byId("scene").hidden = true;
    byId("planes").hidden = false;
    for (const slider of only) { slider.hidden = true; document.querySelector("label[for=" + slider.id + "]").hidden = true; }
    for (const slider of sliders) {
      slider.oninput = () => { byId(slider.dataset.plane).src = base + slider.dataset.plane + "-" + slider.value.padStart(3, "0") + ".png"; };
    }
    section.dataset.viewer = "planes";
  }

  async function scene() {
    const nv = new niivue.Niivue({ backColor: [0, 0, 0, 1], isRadiologicalConvention: true, sagittalNoseLeft: true, multiplanarShowRender: 0,
      loadingText: "Loading PET and CT", dragAndDropEnabled: false, crosshairWidth: 0.5, crosshairGap: 8, crosshairColor: [1, .62, 0, 1] });
    nv.addColormap("outline", { R: [86, 86, 86], G: [180, 180, 180], B: [233, 233, 233],
      A: [0, 255, 255], I: [0, 60, 255] });
    byId("planes").hidden = true;
    byId("scene").hidden = false;
    await nv.attachToCanvas(byId("gl"));
    await nv.loadVolumes([
      { url: base + "ct.nii.gz", colormap: "gray", cal_min: -160, cal_max: 240 },
      { url: base + "pet.nii.gz", colormap: "hot", cal_min: 0.12 * top, cal_max: top, opacity: .5 },
      { url: base + "outline.nii.gz", colormap: "outline", cal_min: .2, cal_max: 1 },
    ]);
    nv.setSliceType(nv.sliceTypeMultiplanar);
    const move = function () {
      const [axial, coronal, sagittal] = ["axial", "coronal", "sagittal"].map(name => share(byId("s-" + name)));
      nv.scene.crosshairPos = [1 - sagittal, 1 - coronal, axial];  // the file is RAS, the planes count in LPS
      nv.drawScene();
    };
    for (const slider of sliders) slider.oninput = move;
    nv.onLocationChange = function () {
      const [x, y, z] = nv.scene.crosshairPos;
      for (const [name, part] of [["axial", z], ["coronal", 1 - y], ["sagittal", 1 - x]]) {
        const slider = byId("s-" + name);
        slider.value = Math.round(part * Number(slider.max));
      }
    };
    byId("s-pet").oninput = e => nv.setOpacity(1, e.target.value / 100);
    byId("s-mask").oninput = e => nv.setOpacity(2, e.target.value / 100);
    move();
    section.dataset.viewer = "webgl";
  }

  byId("sliders").hidden = false;
  const gl = document.createElement("canvas").getContext("webgl2");
  if (gl && window.niivue) scene().catch(flat); else flat();
})();
